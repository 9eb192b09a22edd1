"""CLIPFusion, Figure 1: its anomaly maps beside WinCLIP's, without references.

Command (prepared data set, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.figure1 --out runs/clipfusion-figures --categories bottle hazelnut

Expected: fine defects that WinCLIP's windows blur. Which images the paper shows is not said: the first defective ones
of each category are taken.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion.picture_rows import PictureOptions, draw
from experiments.clipfusion.rows import Row

COLUMNS = {"WinCLIP": Row("WinCLIP, 0-shot", "winclip", 0), "CLIPFusion": Row("CLIPFusion, 0-shot", shots=0)}

main = partial(draw, columns=COLUMNS, figure="figure1")
"""Draws a sheet for each data set; returns the files."""


if __name__ == "__main__":
    print(*main(tyro.cli(PictureOptions, description=__doc__)), sep="\n")
