"""DPDiff-AD, Figure 5: numbers of local and global prototypes.

Command (as published, MVTec-AD at 448 px; one GPU):
    python -m experiments.dpdiff.figure5 --data folder:/data/mvtec_ad --out runs/figure5
Small (two CPU cores):
    python -m experiments.dpdiff.figure5 --data folder:/my/parts --out runs/figure5 --preset small --steps 300

Expected: better with global prototypes than without, and with more local ones up to 8, slightly worse with 20; the
paper gives the curves as a picture only, and its text no numbers but 8 and 20. Each pair is a run of its own below
--out.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from experiments.dpdiff.rows import Mean, RowOptions, Table
from experiments.drawing import Panel, write_curves
from jaxad.metrics import LABELS

METRICS = ("image_auroc", "pixel_ap", "mad")


@dataclass(frozen=True, kw_only=True)
class Figure5(RowOptions):
    """Train and evaluate each pair of numbers."""

    local: tuple[int, ...] = (0, 2, 4, 8, 12, 20)
    """Numbers of local prototypes."""
    total: tuple[int, ...] = (0, 1, 2, 4)
    """Numbers of global prototypes."""


def main(options: Figure5) -> dict[str, Mean]:
    """Runs each pair and draws --out/figure5.svg and .pdf; returns the means by row."""
    names = {(local, total): f"{local} local, {total} global" for total in options.total for local in options.local}
    with Table(options, {}, "Figure 5", shares=True) as table:
        for (local, total), name in names.items():
            table.row(name, local_prototypes=local, global_prototypes=total)

    def curve(metric: str, total: int) -> dict[float, float | None]:
        return {local: table.rows[names[local, total]][metric] for local in options.local}

    panels = []
    for metric in METRICS:
        curves = {f"{total} global": curve(metric, total) for total in options.total}
        panels.append(Panel(LABELS[metric].short, "local prototypes", curves))
    write_curves(panels, options.out, "figure5")
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(Figure5, description=__doc__))
