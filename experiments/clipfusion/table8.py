"""CLIPFusion, Table 8: classification with one bank for all categories, with one reference of each.

Command (prepared data set, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table8 --out runs/clipfusion-table12

It is the first row of Table 13 on MVTec-AD, a run of clipfusion_table12; under the same --out it is not repeated.
"""

from __future__ import annotations

import tyro

from experiments.clipfusion import table12 as clipfusion_table12
from experiments.clipfusion.rows import Mean, MVTecOptions, RowOptions, of_images, run

ROWS = clipfusion_table12.ROWS[:1]

PUBLISHED = of_images({"mvtec_ad": clipfusion_table12.PUBLISHED["mvtec_ad"]}, ROWS)


def main(options: RowOptions) -> dict[str, dict[str, Mean]]:
    """Runs every row and prints ours beside the published one; returns the means by data set and row."""
    return run(options, ROWS, PUBLISHED)


if __name__ == "__main__":
    main(tyro.cli(MVTecOptions, description=__doc__))
