"""CLIPFusion, Table 13: classification with one bank for all categories, with 1, 2 and 4 references of each.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table13 --out runs/clipfusion-table12

Expected: near the banks of single categories, e.g. 94.5 for 95.4 image AUROC on MVTec-AD with one reference. The runs
are those of `table12.py`; under the same --out none is repeated.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion import table12
from experiments.clipfusion.rows import RowOptions, images_alone, of_images, run

ROWS = table12.ROWS

PUBLISHED = of_images(table12.PUBLISHED, ROWS)

BESIDE = images_alone(table12.BESIDE)

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 13", beside=BESIDE)
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
