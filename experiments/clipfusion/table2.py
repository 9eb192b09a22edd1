"""CLIPFusion, Table 2: classification with 0, 1, 2 and 4 references, and baselines.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table2 --out runs/clipfusion

The runs are those of clipfusion_table1, which says what of the paper is left out; under the same --out none is
repeated.
"""

from __future__ import annotations

import tyro

from experiments.clipfusion import table1 as clipfusion_table1
from experiments.clipfusion.rows import Mean, RowOptions, of_images, run

ROWS = tuple(row for row in clipfusion_table1.ROWS if row.preset != "maskclip")

PUBLISHED = of_images(clipfusion_table1.PUBLISHED, ROWS)

SPREAD = of_images(clipfusion_table1.SPREAD, ROWS)


def main(options: RowOptions) -> dict[str, dict[str, Mean]]:
    """Runs every row and prints ours beside the published one; returns the means by data set and row."""
    return run(options, ROWS, PUBLISHED, SPREAD)


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
