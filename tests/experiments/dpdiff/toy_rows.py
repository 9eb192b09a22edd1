"""Options of tables that are trained in seconds."""

from experiments.dpdiff.rows import RowOptions


def toy_rows(parts, out, **changes):
    small = {"preset": "small", "steps": 2, "backbone": "random:48x8", "image_size": 56}
    return RowOptions(data=parts.name, out=out, **{**small, **changes})
