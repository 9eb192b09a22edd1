"""WinCLIP by two of its public reimplementations, beside the rows that the tables of CLIPFusion and others take over.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.winclip --out runs/clipfusion

Expected: near the published rows, to which WinCLIP's authors have shown no code. "winclip" is what their paper says, on
the CLIP of the other rows; "caoyunkang-winclip" does as caoyunkang/WinClip, whose own figures without references lie
far below the paper's (70.2 and 80.7 AUROC of images and pixels on MVTec-AD, 64.3 and 70.0 on VisA);
"accurate-winclip" adds prompts and references, with 21 of the prompts and a temperature of 0.07, as
zqhang/Accurate-WinCLIP-pytorch does. The rows of "winclip" are runs of `table1.py`; under the same --out none is
repeated.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion import table1
from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    *(row for row in table1.ROWS if row.preset == "winclip"),
    *(Row(f"WinCLIP of caoyunkang, {shots}-shot", "caoyunkang-winclip", shots) for shots in (0, 1, 2, 4)),
    *(Row(f"Accurate-WinCLIP, {shots}-shot", "accurate-winclip", shots) for shots in (0, 1, 2, 4)),
)

PUBLISHED = {
    benchmark: {row.name: lines[f"WinCLIP, {row.shots}-shot"] for row in ROWS}
    for benchmark, lines in table1.PUBLISHED.items()
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="WinCLIP of Tables 1 and 2")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
