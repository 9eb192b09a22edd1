"""Every false alarm and every miss as the page shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxad.inference.decisions import Decision, mistakes
from jaxad.inference.maps import faint_limit
from jaxad.inference.results import Evaluation
from jaxad.io.pictures import shrink
from jaxad.report.figures import uri
from jaxad.report.images import marked

OPEN = 20
"""Mistakes of each kind that are shown without unfolding."""
BYTES = 2_200_000
"""Of all their pictures together."""
TITLES = {"false alarm": "False alarms: good parts rejected", "missed": "Misses: defective parts passed"}


def sections(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The mistakes by kind, from the most to the least wrong.

    Returns:
        [{`verdict`, `title`, `cards`, `open` (how many stand unfolded)}], each card with its `decision`, its `pictures`
        {"photo" | "marked": data URI}, made smaller and then left out where there are too many, and what the
        `baseline` decided, None without one. Empty without decisions.
    """
    if not any(decision.verdict for decision in evaluation.decisions):
        return []
    others = {decision.index: decision for decision in evaluation.baseline_decisions}
    wrong = mistakes(evaluation.decisions)
    pictures = _pictures(evaluation, [decision for own in wrong.values() for decision in own])
    return [
        {
            "verdict": verdict,
            "title": TITLES[verdict],
            "open": OPEN,
            "cards": [
                {"decision": d, "pictures": pictures.get(d.index, {}), "baseline": others.get(d.index)} for d in own
            ],
        }
        for verdict, own in wrong.items()
    ]


def _pictures(evaluation: Evaluation, wrong: Sequence[Decision]) -> dict[int, dict[str, str]]:
    """Data URIs by index of the image, as large as `BYTES` allow; the last ones are left out where none do."""
    for side in (240, 160, 112):
        made, size = {}, 0
        for decision in wrong:
            if (shown := evaluation.pictures.get(decision.index)) is None:
                continue
            photo = shrink(shown.image, side)
            limit = evaluation.pixel_thresholds.get(decision.category)
            if limit is not None and decision.verdict == "false alarm":
                # There is always a place to look at, as in the box.
                limit = faint_limit(shown.map, limit)
            both = marked(photo, shown.mask, shown.map, limit, width=2)
            own = {"photo": uri(photo, ".jpg"), "marked": uri(both, ".jpg")}
            if (size := size + sum(map(len, own.values()))) > BYTES:
                break
            made[decision.index] = own
        else:
            break
    return made
