r"""DPDiff-AD, Tables B1 to B9: every category of MVTec-AD, VisA, MPDD, Real-IAD and Real-IAD Variety.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.dpdiff.tableB1 --out runs/benchmarks --benchmarks mvtec_ad visa
From the report of a finished run, e.g. of `table3.py` or `jaxad evaluate`:
    python -m experiments.dpdiff.tableB1 --out runs/benchmarks --benchmarks mvtec_ad \
        --reports runs/benchmarks/mvtec_ad/reports/mvtec_ad/seed-0/report.json

Expected: means as in Tables 1 and 3, up to a few tenths by which the paper's columns contradict them. Tables B1, B3, B5
and B7 are image metrics, B2, B4, B6 and B8 pixel metrics of MVTec-AD, VisA, MPDD and Real-IAD; here each row has all of
them. B9 is Real-IAD Variety, of whose 160 categories 146 were legible. Published cells are in `by_category.csv`, also
those of seven other detectors. The runs are those of `table3.py`; under the same --out none is trained twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.by_category import printed_rows, read_cells, read_report, show_categories
from experiments.dpdiff import table3
from experiments.dpdiff.rows import Mean
from experiments.records import Printed
from jaxad.errors import ConfigError
from jaxad.metrics import METRICS as REPORTED

CELLS = read_cells(Path(__file__).with_name("by_category.csv"))
METRICS = REPORTED[:-1]
"""The columns; there is no mAD of a category."""


@dataclass(frozen=True, kw_only=True)
class TableB1(table3.Benchmarks):
    """One row for each category."""

    benchmarks: tuple[str, ...] = ("mvtec_ad", "visa", "mpdd", "real_iad", "real_iad_variety")
    """Prepared data sets."""
    reports: tuple[Path, ...] = ()
    """report.json of finished evaluations, one for each of --benchmarks; trains and evaluates if not given."""


def main(options: TableB1) -> dict[str, dict[str, Mean]]:
    """Prints ours beside the published values; returns the means by data set and category.

    Raises:
        ConfigError: another number of reports than of benchmarks.
    """
    protocol = options.protocols[0]
    if options.reports:
        if len(options.reports) != len(options.benchmarks):
            raise ConfigError(
                f"reports: {len(options.reports)} for {len(options.benchmarks)} benchmarks; give one each"
            )
        pairs = zip(options.benchmarks, options.reports, strict=True)
        return {name: show(name, protocol, [read_report(file, protocol, METRICS)]) for name, file in pairs}
    return {name: show(name, protocol, table.reports[name]) for name, table in table3.run(options)}


def show(data: str, protocol: str, reports: Sequence[dict[str, Any]]) -> dict[str, Mean]:
    """Prints the categories of some reports, one for each seed, and their mean; returns them by category."""
    cells = printed_rows(CELLS, data, "DPDiff-AD", METRICS)
    printed = Printed("DPDiff-AD, Tables B1 to B9", protocol, METRICS, cells, data)
    return show_categories(f"{data}, category by category", printed, reports)


if __name__ == "__main__":
    main(tyro.cli(TableB1, description=__doc__))
