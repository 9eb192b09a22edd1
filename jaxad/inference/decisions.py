"""What a threshold decides about test images: each image's verdict, and how many there are of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxad.inference.maps import defect_box, image_map
from jaxad.inference.threshold import Threshold
from jaxad.io.text import name_text
from jaxad.types import Record

Verdict = Literal["found", "missed", "false alarm", "passed"]
VERDICTS: dict[tuple[int, bool], Verdict] = {
    (1, True): "found",
    (1, False): "missed",
    (0, True): "false alarm",
    (0, False): "passed",
}
"""What came of an image, by its label and whether it was called anomalous."""
COUNTS = {"found": "found", "missed": "missed", "false alarm": "false_alarms", "passed": "passed"}
"""Keys of report.json for the number of images of each verdict."""


@dataclass(frozen=True)
class Decision:
    """One test image: a row of images.csv.

    Attributes:
        index: of the image in its source.
        file: its name in the data set.
        category: of the part.
        defect: name of the defect, "good" for normal images, "" where unknown.
        label: 0 normal or 1 anomalous, as the protocol has it.
        score: image score.
        scaled: the score on the scale of `Threshold.scaled`; this and all that follows is None without a threshold.
        threshold: the image limit.
        verdict: what came of the image.
        box: [x0, y0, x1, y1] of the hottest region in pixels of the image if it is called anomalous.
        flagged: share of the map's pixels above the pixel limit, 0..1.
        overlap: pixels that are flagged and in the true mask, as share of those that are either (IoU); None for normal
            images and without a mask.
    """

    index: int
    file: str
    category: str
    defect: str
    label: int
    score: float
    scaled: float | None = None
    threshold: float | None = None
    verdict: Verdict | None = None
    box: tuple[int, int, int, int] | None = None
    flagged: float | None = None
    overlap: float | None = None


def decide(
    index: int,
    record: Record,
    label: int,
    score: float,
    map: np.ndarray,
    mask: np.ndarray | None,
    size: Sequence[int] | None,
    threshold: Threshold | None,
    inside: np.ndarray | None = None,
) -> Decision:
    """The decision about one image, as `jaxad.predict` has it.

    Args:
        index: of the image in its source.
        record: what is known of it.
        label: 0 or 1 under the protocol.
        score: its score.
        map: [h w] of the protocol, at the size that predictions have.
        mask: bool [h w] true defect at that size, None where there is none.
        size: (height, width) of the image, None where it is not known: there is no box then.
        threshold: the rule; None decides nothing.
        inside: bool [h w], what is judged of the map; None for all.
    """
    known = (index, record.identity or name_text(record.file.name), record.category, record.defect, label, score)
    if threshold is None:
        return Decision(*known)
    limits, box = threshold.of(record.category), None
    anomalous = score > limits.image
    if anomalous and size is not None:
        box = defect_box(image_map(map, size, inside, limits.pixel), limits.pixel)
    above, overlap = (map > limits.pixel) & (True if inside is None else inside), None
    if label and mask is not None and (union := int((above | mask).sum())):
        overlap = int((above & mask).sum()) / union
    scaled, verdict = threshold.scaled(score, record.category), VERDICTS[label, anomalous]
    return Decision(*known, scaled, limits.image, verdict, box, float(above.mean()), overlap)


def counted(decisions: Iterable[Decision], threshold: Threshold) -> dict[str, Any]:
    """`decisions` of report.json.

    Returns:
        `total` with the number of images of each verdict; for each of `categories` the same, its `threshold`, the
        `holdout` images that it comes from, the `false_alarm` rate asked for (null where the threshold was set by
        hand), the rate `supported` by the hold-out (null where that is not known) and, for each of `defects`, how many
        were `found` and `missed`.
    """
    by_category: dict[str, list[Decision]] = {}
    for decision in decisions:
        by_category.setdefault(decision.category, []).append(decision)
    categories = {}
    for name, own in by_category.items():
        limits, kinds = threshold.of(name), {}
        for kind in sorted({decision.defect for decision in own if decision.label}):
            verdicts = Counter(decision.verdict for decision in own if decision.label and decision.defect == kind)
            kinds[kind] = {"found": verdicts["found"], "missed": verdicts["missed"]}
        categories[name] = {
            "threshold": limits.image,
            "holdout": limits.normals,
            "false_alarm": threshold.asked(name),
            "supported": threshold.supported(name),
            **_verdicts(own),
            "defects": kinds,
        }
    return {"total": _verdicts(decision for own in by_category.values() for decision in own), "categories": categories}


def _verdicts(decisions: Iterable[Decision]) -> dict[str, int]:
    verdicts = Counter(decision.verdict for decision in decisions)
    return {key: verdicts[verdict] for verdict, key in COUNTS.items()}


def mistakes(decisions: Iterable[Decision]) -> dict[Verdict, list[Decision]]:
    """The images decided wrongly by verdict, "false alarm" and "missed", each from the most to the least wrong."""
    wrong: dict[Verdict, list[Decision]] = {"false alarm": [], "missed": []}
    for decision in decisions:
        if decision.verdict in wrong:
            wrong[decision.verdict].append(decision)
    for verdict, own in wrong.items():
        own.sort(key=lambda decision: decision.scaled or 0.0, reverse=verdict == "false alarm")
    return wrong
