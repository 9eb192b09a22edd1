"""CLIPFusion, Table 5: which timestep goes with which block of the decoder; MapDiff alone, one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table5 --out runs/clipfusion-table5

Expected: the published pairing above the other by 0.9 and 2.7 points of image AUROC. "step up, block up" takes later
blocks at later timesteps, "step up, block down" earlier ones, which is the published setting. The paper prints AUROC.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    Row("step up, block up", "mapdiff", changes={"diffusion_taps": ((201, 1), (401, 2), (801, 3))}),
    Row("step up, block down", "mapdiff", changes={"diffusion_taps": ((201, 3), (401, 2), (801, 1))}),
)

PUBLISHED = {
    "mvtec_ad": {
        "step up, block up": (86.3, None, 94.3, None),
        "step up, block down": (87.2, None, 95.1, None),
    },
    "visa": {
        "step up, block up": (76.2, None, 95.1, None),
        "step up, block down": (78.9, None, 96.5, None),
    },
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 5")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
