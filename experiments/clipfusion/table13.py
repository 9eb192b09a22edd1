"""CLIPFusion, Table 13: classification with one bank for all categories, with 1, 2 and 4 references of each.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table13 --out runs/clipfusion-table12

The runs are those of clipfusion_table12; under the same --out none is repeated.
"""

from __future__ import annotations

import tyro

from experiments.clipfusion import table12 as clipfusion_table12
from experiments.clipfusion.rows import Mean, RowOptions, of_images, run

ROWS = clipfusion_table12.ROWS

PUBLISHED = of_images(clipfusion_table12.PUBLISHED, ROWS)


def main(options: RowOptions) -> dict[str, dict[str, Mean]]:
    """Runs every row and prints ours beside the published one; returns the means by data set and row."""
    return run(options, ROWS, PUBLISHED)


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
