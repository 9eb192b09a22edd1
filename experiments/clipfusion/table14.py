"""CLIPFusion, Tables 14 to 21: every category of MVTec-AD and VisA, with 0, 1, 2 and 4 references.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.table14 --out runs/clipfusion

Expected: means as in Tables 1 and 2, up to where the paper contradicts itself (`table1.py`). The runs are those of
`table1.py`, of WinCLIP and CLIPFusion; under the same --out none is repeated. Tables 14 to 17 are MVTec-AD's image
AUROC, AUPR, pixel AUROC and AUPRO, Tables 18 to 21 VisA's; here each row has all four. Published cells are in
`by_category.csv`, also those of PaDiM and PatchCore; of Table 17 the last eight categories and the means are missing.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from experiments.by_category import printed_rows, read_cells, show_categories
from experiments.clipfusion import table1
from experiments.clipfusion.rows import METRICS, PROTOCOL, Mean, RowOptions, Runner, benchmark_of, wanted
from experiments.records import Printed

CELLS = read_cells(Path(__file__).with_name("by_category.csv"))
METHODS = ("WinCLIP", "CLIPFusion")


def main(options: RowOptions) -> dict[str, dict[str, dict[str, Mean]]]:
    """Prints ours beside the published values; returns the means over the seeds by data set, row and category."""
    runner, found = Runner(options), {}
    for data in options.data:
        benchmark, found[data] = benchmark_of(data), {}
        rows = [pair for pair in wanted(runner, data, table1, "Table 1") if pair[0].name.startswith(METHODS)]
        runner.complete(data, rows)
        for row, _ in rows:
            cells = printed_rows(CELLS, benchmark, row.name, METRICS)
            printed = Printed("CLIPFusion, Tables 14 to 21", PROTOCOL, METRICS, cells, benchmark)
            found[data][row.name] = show_categories(f"{data}, {row.name}", printed, runner.reports(data, row))
    return found


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
