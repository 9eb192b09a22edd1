"""CLIPFusion, Figure 3: the UNet's cross-attention to each state, and to all of them.

Command (prepared data set, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.figure3 --out runs/clipfusion-figures --categories bottle hazelnut

Expected: attention that is highest where the defect is, each state seeing something else. Which images the paper shows
is not said: the first defective ones of each category are taken.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.picture_rows import PictureOptions, draw
from experiments.clipfusion.rows import Row
from jaxad.config import CLIPFusionConfig

STATES = CLIPFusionConfig().states
COLUMNS = {
    **{state: Row(state, "mapdiff", 0, {"states": (state,)}) for state in STATES},
    "all states": Row("MapDiff, 0-shot", "mapdiff", 0),
}

main = partial(draw, columns=COLUMNS, figure="figure3")
"""Draws a sheet for each data set; returns the files."""


if __name__ == "__main__":
    print(*main(tyro.cli(PictureOptions, description=__doc__)), sep="\n")
