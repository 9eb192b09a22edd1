"""The table that ends an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad.cli._tables import print_table
from jaxad.inference.results import notes_of
from jaxad.metrics import LABELS


def print_metrics(report: Mapping[str, Any]) -> None:
    """The metrics of every category, their mean and the baseline's mean, in percent on stdout, and notes on them."""
    rows = {**report["classes"], "mean": report["mean"]}
    if "baseline" in report:
        rows["baseline mean"] = report["baseline"]["mean"]
    print(f"protocol {report['protocol']}, percent; I image, P pixel")
    heads = ("category", *(label.short for label in LABELS.values()))
    cells = [
        (name, *("-" if values[metric] is None else f"{100 * values[metric]:.1f}" for metric in LABELS))
        for name, values in rows.items()
    ]
    print_table(heads, cells, numbers=[False, *[True] * len(LABELS)])
    for note in notes_of(report):
        print(f"note: {note}")
