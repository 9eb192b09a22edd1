"""CLIPFusion, Table 11: states chosen for a category; MapDiff alone, one reference.

Command (prepared data set, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion_table11 --out runs/clipfusion-table11

Only cable and pill of MVTec-AD are run. The paper prints one AUROC and says neither whether images or pixels are
judged nor by which model; here it stands beside that of images, judged by MapDiff as in the other tables on its parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from experiments.clipfusion_rows import Mean, Row, RowOptions, run

STATES = {"cable": "crack,poke,scratch", "pill": "crack,scratch,residue"}

ROWS = tuple(
    row
    for category, states in STATES.items()
    for row in (
        Row(f"{category}, all states", "mapdiff", category=category),
        Row(
            f"{category}, its states", "mapdiff", changes={"class_states": (f"{category}={states}",)}, category=category
        ),
    )
)

PUBLISHED = {
    "mvtec_ad": {
        "cable, all states": (94.6, None, None, None),
        "cable, its states": (95.0, None, None, None),
        "pill, all states": (83.0, None, None, None),
        "pill, its states": (83.5, None, None, None),
    }
}


@dataclass(frozen=True)
class Options(RowOptions):
    """As of the other tables, on MVTec-AD alone."""

    data: tuple[str, ...] = ("mvtec_ad",)


def main(options: RowOptions) -> dict[str, dict[str, Mean]]:
    """Runs every row and prints ours beside the published one; returns the means by data set and row."""
    return run(options, ROWS, PUBLISHED)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
