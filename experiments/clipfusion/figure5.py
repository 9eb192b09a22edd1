"""CLIPFusion, Figures 5 to 7: PatchCLIP's, MapDiff's and the fused anomaly map of each category, without references.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.figure5 --out runs/clipfusion-figures --data mvtec_ad visa

Expected: PatchCLIP finds the object's damaged part, MapDiff its outline. Figures 5 and 6 are MVTec-AD, 7 is VisA. Which
images the paper shows is not said: the first defective ones of each category are taken.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.picture_rows import PictureOptions, draw
from experiments.clipfusion.rows import Row

COLUMNS = {
    "PatchCLIP": Row("PatchCLIP, 0-shot", "patchclip", 0),
    "MapDiff": Row("MapDiff, 0-shot", "mapdiff", 0),
    "CLIPFusion": Row("CLIPFusion, 0-shot", shots=0),
}

main = partial(draw, columns=COLUMNS, figure="figure5")
"""Draws a sheet for each data set; returns the files."""


if __name__ == "__main__":
    print(*main(tyro.cli(PictureOptions, description=__doc__)), sep="\n")
