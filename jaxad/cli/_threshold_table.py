"""The table of a threshold, and what its hold-out vouches for."""

from __future__ import annotations

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
    how = (
        f"chosen for {100 * threshold.false_alarm:.3g}% false alarms"
        if threshold.value is None
        else f"set to {threshold.value:g}"
    )
    show(f"threshold under {threshold.protocol}, {how}")
    rows = []
    for name in names:
        limits = threshold.limits[name]
        was = [] if before is None else [f"{before.of(name).image:.5g}"]
        rows.append((name or pooled, f"{limits.image:.5g}", *was, str(limits.normals), rate_text(threshold, name)))
    heads = ("category", "threshold", *(["before"] if before is not None else []), "hold-out", "false alarms")
    print_table(heads, rows, numbers=[False, True, *([True] if before is not None else []), True, False])
