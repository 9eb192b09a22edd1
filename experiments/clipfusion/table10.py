"""CLIPFusion, Table 10: the generic state alone against four states; MapDiff alone, one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table10 --out runs/clipfusion-table10

Expected: four states above one, by 1.8 and 5.8 points of image AUROC. The paper prints AUROC.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    Row("damage", "mapdiff", changes={"states": ("damage",)}),
    Row("crack, hole, residue, damage", "mapdiff", changes={"states": ("crack", "hole", "residue", "damage")}),
)

PUBLISHED = {
    "mvtec_ad": {"damage": (85.4, None, 94.0, None), "crack, hole, residue, damage": (87.2, None, 95.1, None)},
    "visa": {"damage": (73.1, None, 95.8, None), "crack, hole, residue, damage": (78.9, None, 96.5, None)},
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 10")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
