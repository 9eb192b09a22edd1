"""CLIPFusion, Table 10: the generic state alone against four states; MapDiff alone, one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table10 --out runs/clipfusion-table10

The paper prints AUROC.
"""

from __future__ import annotations

import tyro

from experiments.clipfusion.rows import Mean, Row, RowOptions, run

ROWS = (
    Row("damage", "mapdiff", changes={"states": ("damage",)}),
    Row("crack, hole, residue, damage", "mapdiff", changes={"states": ("crack", "hole", "residue", "damage")}),
)

PUBLISHED = {
    "mvtec_ad": {"damage": (85.4, None, 94.0, None), "crack, hole, residue, damage": (87.2, None, 95.1, None)},
    "visa": {"damage": (73.1, None, 95.8, None), "crack, hole, residue, damage": (78.9, None, 96.5, None)},
}


def main(options: RowOptions) -> dict[str, dict[str, Mean]]:
    """Runs every row and prints ours beside the published one; returns the means by data set and row."""
    return run(options, ROWS, PUBLISHED)


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
