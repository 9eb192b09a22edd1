"""Tables of a threshold: what its hold-out vouches for, and what it decides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxad.cli._printing import show
from jaxad.cli._tables import print_table
from jaxad.inference.threshold import POOLED, Threshold, rate_text
from jaxad.io.text import apart


def print_threshold(threshold: Threshold, *, before: Threshold | None = None) -> None:
    """Image limits by category on stdout, each with its hold-out images and the false-alarm rate that they support.

    Args:
        threshold: in force.
        before: the rule that it took the place of, shown beside it.
    """
    pooled = apart("all together", threshold.limits)
    # The pooled limits are those of the one category, where there is one.
    names = [name for name in threshold.limits if name != POOLED] or [POOLED]
    names += [POOLED] if len(names) > 1 else []
    by_hand, rates = threshold.value, sorted({threshold.asked(name) or 0 for name in names} - {0})
    chosen = f"chosen for {', '.join(f'{100 * rate:.3g}%' for rate in rates)} false alarms"
    show(f"threshold under {threshold.protocol}, {chosen if by_hand is None else f'set to {by_hand:g}'}")
    rows = []
    for name in names:
        limits = threshold.limits[name]
        was = [] if before is None else [f"{before.of(name).image:.5g}"]
        rate = rate_text(threshold.asked(name), threshold.supported(name), limits.normals)
        rows.append((name or pooled, f"{limits.image:.5g}", *was, str(limits.normals), rate))
    heads = ("category", "threshold", *(["before"] if before is not None else []), "hold-out", "false alarms")
    print_table(heads, rows, numbers=[False, True, *([True] if before is not None else []), True, False])


def print_decisions(report: Mapping[str, Any], threshold: Threshold) -> None:
    """What was found and rejected at the threshold, by category and in total, on stdout.

    Args:
        report: the dictionary of report.json, with `decisions`.
        threshold: that decided.
    """
    counts = report["decisions"]
    rows = []
    for name, row in counts["categories"].items():
        rate = rate_text(row["false_alarm"], row["supported"], row["holdout"])
        rows.append((name, f"{row['threshold']:.5g}", rate, *_shares(row)))
    if len(rows) > 1:
        rows.append((apart("all", counts["categories"]), "", "", *_shares(counts["total"])))
    show("decisions at the threshold")
    heads = ("category", "threshold", "false alarms", "defects found", "good rejected")
    print_table(heads, rows, numbers=[False, True, False, True, True])
    for warning in threshold.warnings:
        show(f"note: {warning}")


def _shares(row: Mapping[str, int]) -> tuple[str, str]:
    defective, good = row["found"] + row["missed"], row["false_alarms"] + row["passed"]
    return f"{row['found']} of {defective}", f"{row['false_alarms']} of {good}"
