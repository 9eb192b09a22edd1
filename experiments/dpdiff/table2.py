"""DPDiff-AD, Table 2: how metrics change as categories of Real-IAD Variety grow from 30 to 160.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.dpdiff.table2 --out runs/benchmarks

Expected: a range of 1.1 points of image AUROC, 0.3 of mAD, over S1, S2, S3 and all. The range of a metric is its
largest value less its smallest. The runs are those of `table3.py`; under the same --out none is trained twice.
`figure1.py` draws two columns of it beside those of other detectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tyro

from experiments.dpdiff import table3
from experiments.dpdiff.rows import PROTOCOL, Mean
from experiments.records import Printed
from experiments.rows import Lines
from jaxad.metrics import METRICS
from jaxad.report.published import misfits

SIZES = {"real_iad_variety/s1": 30, "real_iad_variety/s2": 60, "real_iad_variety/s3": 100, "real_iad_variety": 160}
"""Categories of each data set."""

RANGE = "range"
PUBLISHED = {RANGE: (1.1, 0.3, 0.7, 0.9, 1.1, 0.8, 2.4, 0.3)}


@dataclass(frozen=True, kw_only=True)
class Table2(table3.Benchmarks):
    """Train and evaluate one model for each number of categories."""

    benchmarks: tuple[str, ...] = tuple(SIZES)
    """Prepared data sets."""


def main(options: Table2) -> dict[str, Mean]:
    """Runs each data set and prints the ranges beside the published ones; returns means and ranges by row."""
    tables = dict(table3.run(options))
    rows = {name: table.rows[name] for name, table in tables.items()}
    columns = {metric: [row[metric] for row in rows.values()] for metric in METRICS}
    ranges = {metric: None if None in own else max(own) - min(own) for metric, own in columns.items()}  # type: ignore[type-var,operator]
    printed = Printed("DPDiff-AD, Table 2", PROTOCOL, METRICS, PUBLISHED)
    reports = ((printed.row(RANGE, name), report) for name, table in tables.items() for report in table.reports[name])
    # Ranges over other data sets or under another protocol are not those that the paper prints.
    fits = set(rows) == set(SIZES) and not misfits((row, report) for row, report in reports if row is not None)
    lines = Lines(printed if fits else replace(printed, rows={}), width=28)
    return {**rows, RANGE: lines.show(RANGE, [ranges])}


if __name__ == "__main__":
    main(tyro.cli(Table2, description=__doc__))
