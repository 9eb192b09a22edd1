"""CLIPFusion, Table 6: the earliest block of the decoder (block 0) as well; MapDiff alone, one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table6 --out runs/clipfusion-table6

Expected: without block 0 better, by 0.7 and 4.0 points of image AUROC. The paper does not say at which timestep block 0
was taken; here it is the last one, 801, since earlier blocks go with later timesteps. The paper prints AUROC.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    Row("with block 0", "mapdiff", changes={"diffusion_taps": ((201, 3), (401, 2), (801, 1), (801, 0))}),
    Row("without block 0", "mapdiff", changes={"diffusion_taps": ((201, 3), (401, 2), (801, 1))}),
)

PUBLISHED = {
    "mvtec_ad": {"with block 0": (86.5, None, 94.9, None), "without block 0": (87.2, None, 95.1, None)},
    "visa": {"with block 0": (74.9, None, 93.7, None), "without block 0": (78.9, None, 96.5, None)},
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 6")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
