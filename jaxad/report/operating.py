"""What other thresholds would find and reject: a table, and the numbers behind the page's slider."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from jaxad.inference.decisions import Decision

REJECTED = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Shares of the good test images for which the table has a threshold that rejects no more of them."""


def alternatives(decisions: Sequence[Decision], thresholds: Mapping[str, float]) -> list[dict[str, Any]]:
    """For each category a table of thresholds from low to high.

    Args:
        decisions: about all test images.
        thresholds: in force, by category; categories without one are left out.

    Returns:
        [{`category`, `good`, `defective` (numbers of images), `rows` [{`threshold`, as a text that decides the same,
        `found`, `alarms`, `notes`}]}].
        Besides the threshold in force they are the highest that finds every defect, the lowest that rejects no good
        part, and those that reject at most `REJECTED` of the good parts.
    """
    tables = []
    for category, threshold in thresholds.items():
        good, defective = _scores(decisions, category)
        notes: dict[float, list[str]] = {float(threshold): ["in force"]}
        if good.size:
            notes.setdefault(float(good.max()), []).append("lowest that rejects no good part of this test")
            ranks = {int(share * good.size) for share in REJECTED} - {0}
            for rank in sorted(ranks):
                notes.setdefault(float(good[::-1][rank]), [])
        if defective.size:
            lowest = np.nextafter(defective.min(), -np.inf)
            notes.setdefault(float(lowest), []).append("highest that finds every defective part of this test")
        rows = []
        for limit, said in sorted(notes.items()):
            found, alarms = _above(limit, defective, good)
            texts = (f"{limit:.{digits}g}" for digits in range(4, 18))
            text = next(text for text in texts if _above(float(text), defective, good) == (found, alarms))
            rows.append({"threshold": text, "found": found, "alarms": alarms, "notes": said})
        tables.append({"category": category, "good": good.size, "defective": defective.size, "rows": rows})
    return tables


def slider(decisions: Sequence[Decision], thresholds: Mapping[str, float]) -> Markup:
    """The scores of all images by category as JSON for the page's script: {category: {in_force, good, defective}}."""
    values = {}
    for category, threshold in thresholds.items():
        good, defective = _scores(decisions, category)
        # Nine digits tell any two scores of 32 bits apart.
        texts = {"good": [float(f"{v:.9g}") for v in good], "defective": [float(f"{v:.9g}") for v in defective]}
        values[category] = {"in_force": float(threshold), **texts}
    # In a script nothing is escaped; "<" must not end it.
    return Markup(json.dumps(values).replace("<", "\\u003c"))


def _above(limit: float, *scores: np.ndarray) -> tuple[int, ...]:
    return tuple(int((values > limit).sum()) for values in scores)


def _scores(decisions: Sequence[Decision], category: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the good and of the defective images of a category, each from low to high."""
    own = [decision for decision in decisions if decision.category == category]
    return tuple(np.sort(np.array([d.score for d in own if d.label == label], np.float64)) for label in (0, 1))  # type: ignore[return-value]
