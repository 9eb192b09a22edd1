"""CLIPFusion, Table 9: which parts of the UNet give the cross-attention; MapDiff alone, one reference.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table9 --out runs/clipfusion-table9

Expected: encoder and decoder without the bottleneck best. The paper prints AUROC.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    Row("decoder", "mapdiff", changes={"attention_parts": ("up",)}),
    Row("encoder, bottleneck, decoder", "mapdiff", changes={"attention_parts": ("down", "mid", "up")}),
    Row("encoder, decoder", "mapdiff", changes={"attention_parts": ("down", "up")}),
)

PUBLISHED = {
    "mvtec_ad": {
        "decoder": (83.2, None, 94.4, None),
        "encoder, bottleneck, decoder": (86.8, None, 94.4, None),
        "encoder, decoder": (87.2, None, 95.1, None),
    },
    "visa": {
        "decoder": (74.1, None, 96.0, None),
        "encoder, bottleneck, decoder": (76.1, None, 96.4, None),
        "encoder, decoder": (78.9, None, 96.5, None),
    },
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 9")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
