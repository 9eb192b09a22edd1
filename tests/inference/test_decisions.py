"""What is decided about an image, in numbers that can be counted by hand."""

from pathlib import Path

import numpy as np
import pytest

from jaxad.inference.decisions import VERDICTS, counted, decide, mistakes
from jaxad.inference.threshold import Limits, Threshold
from jaxad.types import Record

RULE = Threshold(0.1, "exact-256", {"": Limits(1.0, 0.5, 0.0, 5, above=0, spread=0.5)})


def about(score, label, *, map=None, mask=None, size=(20, 40), threshold=RULE, defect="cut", index=0):
    record = Record(Path("x/a.png"), "cup", label, defect if label else "good", None, "cup/a.png")
    return decide(index, record, label, score, np.zeros((10, 10)) if map is None else map, mask, size, threshold)


def test_pixels_are_those_above_the_pixel_limit():
    map, mask = np.zeros((10, 10), np.float32), np.zeros((10, 10), bool)
    map[2:4, 2:7], map[9, 9] = 0.9, 0.5
    mask[2:4, 5:9] = True
    decision = about(2.0, 1, map=map, mask=mask)
    assert decision.flagged == 0.1
    assert decision.overlap == 4 / 14
    assert decision.verdict == "found"
    assert (decision.threshold, decision.scaled) == (1.0, 0.5 + 0.5 * 2 / 3)
    # The hottest region, in pixels of an image that is four times as wide and twice as high.
    x0, y0, x1, y1 = decision.box
    assert abs(x0 - 8) <= 2
    assert abs(x1 - 28) <= 2
    assert abs(y0 - 4) <= 1
    assert abs(y1 - 8) <= 1


def test_what_does_not_exist_is_none():
    assert about(2.0, 0).overlap is None
    assert about(2.0, 1).overlap is None
    assert about(0.5, 1, mask=np.eye(10) > 0).overlap == 0
    assert about(0.5, 1).box is None
    assert about(2.0, 1, size=None).box is None
    nothing = about(2.0, 1, threshold=None)
    assert (nothing.score, nothing.verdict, nothing.threshold, nothing.box, nothing.flagged) == (2.0, *[None] * 4)


@pytest.mark.parametrize(("case", "verdict"), VERDICTS.items())
def test_a_score_at_the_threshold_is_not_above_it(case, verdict):
    label, anomalous = case
    assert about(np.nextafter(1.0, 2.0) if anomalous else 1.0, label).verdict == verdict


def test_counts_and_the_order_of_mistakes():
    scores = [(2.0, 0), (3.0, 0), (0.5, 0), (0.7, 1), (0.2, 1), (5.0, 1)]
    decisions = [about(*case, index=i, defect=("cut", "dent")[i % 2]) for i, case in enumerate(scores)]
    assert {verdict: [d.index for d in own] for verdict, own in mistakes(decisions).items()} == {
        "false alarm": [1, 0],
        "missed": [4, 3],
    }
    numbers = {"found": 1, "missed": 2, "false_alarms": 2, "passed": 1}
    counts = counted(decisions, RULE)
    assert counts["total"] == numbers
    assert counts["categories"]["cup"] == {
        "threshold": 1.0,
        "holdout": 5,
        "false_alarm": 0.1,
        "supported": 1 / 6,
        **numbers,
        "defects": {"cut": {"found": 0, "missed": 1}, "dent": {"found": 1, "missed": 1}},
    }
