"""WinCLIP by two of its public reimplementations, beside the rows that the tables of CLIPFusion and others take over.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.winclip --out runs/clipfusion

Expected: near the published rows, to which WinCLIP's authors have shown no code. "winclip" joins prompts and references
of a map by their harmonic mean, as the paper and caoyunkang/WinClip do; "accurate-winclip" adds them, with 21 of the
prompts and a temperature of 0.07, as zqhang/Accurate-WinCLIP-pytorch does. The rows of "winclip" are runs of
`table1.py`; under the same --out none is repeated.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion import table1
from experiments.clipfusion.rows import Row, RowOptions, run

ROWS = (
    *(row for row in table1.ROWS if row.preset == "winclip"),
    *(Row(f"Accurate-WinCLIP, {shots}-shot", "accurate-winclip", shots) for shots in (0, 1, 2, 4)),
)

PUBLISHED = {
    benchmark: {row.name: lines[row.name.removeprefix("Accurate-")] for row in ROWS}
    for benchmark, lines in table1.PUBLISHED.items()
}

main = partial(run, rows=ROWS, published=PUBLISHED, source="WinCLIP of Tables 1 and 2")
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
