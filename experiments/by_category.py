"""What the papers print category by category, and ours beside it.

Not an experiment itself; `dpdiff/tableB1.py`, `clipfusion/table14.py` and `vlmdiff/table15.py` build on it.

The files `by_category.csv` are transcribed from the papers, in percent: a line for each data set, category and method;
"mean" is the printed average, and an empty cell was not to be read. Their columns are metrics, with `_std` behind
deviations over seeds.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.records import Percent, Printed
from experiments.rows import Lines, Mean
from jaxad.errors import DataError

MEAN = "mean"
DEVIATION = "_std"

Cells = dict[tuple[str, str], dict[str, dict[str, float]]]
"""Percent by data set and method, category, and column."""


def read_cells(file: Path) -> Cells:
    """What was transcribed."""
    found: Cells = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            data, category, method = (line.pop(name) for name in ("data", "category", "method"))
            row = {name: float(value) for name, value in line.items() if value}
            found.setdefault((data, method), {})[category] = row
    return found


def contradictions(cells: Cells, rounding: float = 0.1) -> dict[tuple[str, str, str], float]:
    """Where the printed average is not the mean of the printed categories, by data set, method and metric: how far the
    mean lies above it, in points. `rounding` is what the two roundings explain."""
    found = {}
    for (data, method), rows in cells.items():
        categories = [row for name, row in rows.items() if name != MEAN]
        for metric, printed in rows.get(MEAN, {}).items():
            if not metric.endswith(DEVIATION):
                apart = float(np.mean([row[metric] for row in categories])) - printed
                if abs(apart) > rounding + 1e-6:
                    found[data, method, metric] = round(apart, 2)
    return found


def printed_rows(cells: Cells, data: str, method: str, metrics: Sequence[str]) -> dict[str, Percent]:
    """One method's categories as rows of a table with these columns; nothing where nothing was printed."""
    rows = cells.get((data, method), {})
    return {name: [row.get(metric) for metric in metrics] for name, row in rows.items()}


def show_categories(title: str, printed: Printed, reports: Sequence[Mapping[str, Any]]) -> dict[str, Mean]:
    """Prints the categories of some reports, one for each seed, and their mean, beside the published ones.

    Args:
        title: printed above.
        printed: with a row for each category and "mean", and the data set.
        reports: contents of report.json.

    Returns:
        Our metrics by category.
    """
    print(f"\n{title}")
    lines, data = Lines(printed, width=32), printed.data
    # Names may have hyphens or blanks where the paper has underscores.
    known: dict[str, str] = {_plain(name): name for name in printed.rows}
    rows: dict[str, Mean] = {}
    categories: list[str] = list(reports[0]["classes"])
    for category in categories:
        own = [_only(report, category) for report in reports]
        means = [report["classes"][category] for report in reports]
        row = known.get(_plain(category), category)
        rows[category] = lines.show(row, means, data=f"{data}/{category}", reports=own)
    rows[MEAN] = lines.show(MEAN, [report["mean"] for report in reports], data=data, reports=reports)
    return rows


def read_report(file: Path, protocol: str, metrics: Sequence[str]) -> dict[str, Any]:
    """A report under a protocol.

    Raises:
        DataError: no such file, no report, or one under another protocol.
    """
    try:
        report = json.loads(file.read_text("utf-8"))
        found, known = report["protocol"], {metric for row in report["classes"].values() for metric in row}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: no report.json of `jaxad evaluate`: {error}") from error
    if found != protocol or not known.issuperset(metrics):
        raise DataError(f"{file}: protocol {found}; the tables need {protocol}, with {', '.join(metrics)}")
    return report


def _only(report: Mapping[str, Any], category: str) -> dict[str, Any]:
    """A report of one of its categories."""
    data = {**report["data"], "source": f"{report['data']['source']}/{category}"}
    return {**report, "classes": {category: report["classes"][category]}, "data": data}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
