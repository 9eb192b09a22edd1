"""The table that ends an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad.cli._printing import show
from jaxad.cli._tables import print_table
from jaxad.inference.results import notes_of
from jaxad.io.text import apart
from jaxad.metrics import LABELS


def print_metrics(report: Mapping[str, Any]) -> None:
    """The metrics of every category, their mean and the baseline's mean, in percent on stdout, and notes on them."""
    classes = report["classes"]
    rows = [*classes.items(), (apart("mean", classes), report["mean"])]
    if "baseline" in report:
        rows.append((apart("baseline mean", classes), report["baseline"]["mean"]))
    show(f"protocol {report['protocol']}, percent; I image, P pixel")
    heads = ("category", *(label.short for label in LABELS.values()))
    cells = [
        (name, *("-" if values[metric] is None else f"{100 * values[metric]:.1f}" for metric in LABELS))
        for name, values in rows
    ]
    print_table(heads, cells, numbers=[False, *[True] * len(LABELS)])
    for note in notes_of(report):
        show(f"note: {note}")
