"""CLIPFusion, Table 8: classification with one bank for all categories, with one reference of each.

Command (prepared data set, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table8 --out runs/clipfusion-table12

Expected: 94.5 image AUROC. It is the first row of Table 13 on MVTec-AD, a run of `table12.py`; under the same --out it
is not repeated.
"""

from __future__ import annotations

from functools import partial

import tyro

from experiments.clipfusion import table12
from experiments.clipfusion.rows import MVTecOptions, images_alone, of_images, run

ROWS = table12.ROWS[:1]

PUBLISHED = of_images({"mvtec_ad": table12.PUBLISHED["mvtec_ad"]}, ROWS)

BESIDE = images_alone({"mvtec_ad": table12.BESIDE["mvtec_ad"]}, ["IIPAD, 1-shot"])

main = partial(run, rows=ROWS, published=PUBLISHED, source="Table 8", beside=BESIDE)
"""Runs each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(MVTecOptions, description=__doc__))
