"""CLIPFusion, Table 2: classification with 0, 1, 2 and 4 references, and baselines.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table2 --out runs/clipfusion

Expected: CLIPFusion above WinCLIP at every number of references, e.g. 95.4 and 93.1 AUROC on MVTec-AD with one. The
runs are those of `table1.py`, whose header says what is left out; under the same --out none is repeated.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion import table1
from experiments.clipfusion.rows import RowOptions, images_alone, of_images, run

ROWS = tuple(row for row in table1.ROWS if row.preset not in ("maskclip", "trans-mm"))

PUBLISHED = of_images(table1.PUBLISHED, ROWS)

SPREAD = of_images(table1.SPREAD, ROWS)

BESIDE = images_alone(table1.BESIDE)

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 2", spread=SPREAD, beside=BESIDE)
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
