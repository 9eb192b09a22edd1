"""CLIPFusion, Table 3: what each model contributes, with one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table3 --out runs/clipfusion-table3

Expected: both together (95.4 and 86.5 image AUROC) above each alone. "diffusion" is MapDiff alone and "CLIP" PatchCLIP
alone; the paper prints AUROC.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (Row("CLIP", "patchclip"), Row("diffusion", "mapdiff"), Row("CLIP, diffusion"))

PUBLISHED = {
    "mvtec_ad": {
        "CLIP": (93.5, None, 94.7, None),
        "diffusion": (87.2, None, 95.1, None),
        "CLIP, diffusion": (95.4, None, 95.8, None),
    },
    "visa": {
        "CLIP": (82.2, None, 93.7, None),
        "diffusion": (78.9, None, 96.5, None),
        "CLIP, diffusion": (86.5, None, 97.3, None),
    },
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 3")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
