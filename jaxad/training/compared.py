"""What two versions of a run get wrong on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jaxad.inference.threshold import Threshold
from jaxad.types import Source


@dataclass(frozen=True)
class Compared:
    """What the old and the new version get wrong on some images.

    Attributes:
        what: which images, and which errors.
        images: their number.
        old, new: errors of each.
    """

    what: str
    images: int
    old: int
    new: int


def above(scores: np.ndarray, categories: Sequence[str], rule: Threshold) -> np.ndarray:
    """Which image scores [n] lie above the limits of their categories: bool [n]."""
    return scores > np.array([rule.of(category).image for category in categories])


def compared(name: str, source: Source, *versions: tuple[np.ndarray, Threshold]) -> list[Compared]:
    """What versions get wrong: false alarms among images not labeled as anomalous, misses among those that are.

    Args:
        name: of the images.
        source: the images.
        versions: of the old and of the new one the image scores [n], and the rule that decides on them.

    Returns:
        A row for either kind of image that there is.
    """
    labels = np.array([bool(record.label) for record in source.records])
    categories = [record.category for record in source.records]
    found = [above(scores, categories, rule) for scores, rule in versions]
    rows = []
    for wrong, errors, members in (("false alarms", found, ~labels), ("missed defects", [~a for a in found], labels)):
        if members.any():
            counts = [int((one & members).sum()) for one in errors]
            rows.append(Compared(f"{name}: {wrong}", int(members.sum()), *counts))
    return rows
