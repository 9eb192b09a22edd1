"""DPDiff-AD, Table 2: how metrics change as categories of Real-IAD Variety grow from 30 to 160.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.dpdiff.table2 --out runs/benchmarks

Expected: a range of 1.1 points of image AUROC, 0.3 of mAD, over S1, S2, S3 and all. The range of a metric is its
largest value less its smallest. The runs are those of `table3.py`; under the same --out none is trained twice.
`figure1.py` draws two columns of it beside those of other detectors.
"""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from experiments.dpdiff import table3
from experiments.dpdiff.rows import PROTOCOL, Mean
from experiments.records import Printed
from experiments.rows import Lines
from jaxad.metrics import METRICS

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
    rows = table3.main(options)
    columns = {metric: [row[metric] for row in rows.values()] for metric in METRICS}
    ranges = {metric: None if None in own else max(own) - min(own) for metric, own in columns.items()}  # type: ignore[type-var,operator]
    # Ranges over other data sets are not those that the paper prints.
    published = PUBLISHED if set(rows) == set(SIZES) else {}
    lines = Lines(Printed("DPDiff-AD, Table 2", PROTOCOL, METRICS, published, "real_iad_variety"), width=28)
    return {**rows, RANGE: lines.show(RANGE, [ranges])}


if __name__ == "__main__":
    main(tyro.cli(Table2, description=__doc__))
