"""CLIPFusion, Tables 1 to 6 and 8 to 13 at once: every run of every table out of one pass over the test images.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.tables --out runs/clipfusion

Expected: what the headers of `table1.py` to `table13.py` say. With five draws these are 94 different runs on
MVTec-AD and 90 on VisA; an image passes the UNet twelve times for all of them (Table 11's states of single categories
need some passes more). Tables that are asked for alone with the same --out find their runs here, Tables 14 to 21
(`table14.py`) too.
"""

from __future__ import annotations

from dataclasses import replace

import tyro

from experiments.clipfusion import (
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table8,
    table9,
    table10,
    table11,
    table12,
    table13,
)
from experiments.clipfusion.rows import Mean, RowOptions, Runner, benchmark_of, wanted

TABLES = {
    1: table1,
    2: table2,
    3: table3,
    4: table4,
    5: table5,
    6: table6,
    8: table8,
    9: table9,
    10: table10,
    11: table11,
    12: table12,
    13: table13,
}


def main(options: RowOptions) -> dict[int, dict[str, dict[str, Mean]]]:
    """Makes all runs, then prints table after table; returns the means by table, data set and row."""
    runner = Runner(options)
    for data in options.data:
        rows = {}
        for number, table in TABLES.items():
            source = f"Table {number}"
            rows = {row.name: (row, known) for row, known in wanted(runner, data, table, source)} | rows
        runner.complete(data, rows.values())
    found = {}
    for number, table in TABLES.items():
        own = tuple(data for data in options.data if benchmark_of(data) in table.PUBLISHED)
        if own:
            print(f"\nTable {number}")
            found[number] = table.main(replace(options, data=own))
    return found


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
