"""What figures share: curves as SVG and PDF.

Not an experiment itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxad.report.comparison.plots import STYLE, require_matplotlib, write_figure

Curve = Mapping[float, float | None]
"""y by x."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        title: above it.
        x: name of the axis.
        curves: by name.
        published: names of the curves that are the paper's, which are drawn broken.
        factor: that values are drawn multiplied by; shares become percent.
    """

    title: str
    x: str
    curves: Mapping[str, Curve]
    published: Sequence[str] = ()
    factor: float = 100.0


def write_curves(panels: Sequence[Panel], folder: Path, name: str) -> list[Path]:
    """Draws charts beside each other; returns the files NAME.svg and NAME.pdf."""
    require_matplotlib("figures")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 2.8), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for label, curve in panel.curves.items():
                known = sorted((x, panel.factor * y) for x, y in curve.items() if y is not None)
                style = "--" if label in panel.published else "-"
                axes.plot(*zip(*known, strict=True), style, marker=".", label=label) if known else None
            axes.set_title(panel.title)
            axes.set_xlabel(panel.x)
            if axes.lines:
                axes.legend(fontsize=6)
        return write_figure(figure, folder, name)
