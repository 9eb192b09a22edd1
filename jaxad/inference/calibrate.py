"""Thresholds from normal images only: conformal quantiles per category."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.inference.holdout_scores import HoldoutScores, measure_holdout
from jaxad.inference.threshold import POOLED, Limits, Threshold, overridden
from jaxad.io.progress import counted
from jaxad.io.text import apart
from jaxad.types import Source

ROUNDING = 1e-5
"""How far, relatively, a score may move with the batch that an image is in; limits lie so much higher."""


def conformal_quantile(scores: np.ndarray, false_alarm: float) -> float:
    """The smallest observed score that a further normal image passes with a probability of at most `false_alarm`.

    That is the ceil((n + 1)(1 - false_alarm))-th smallest of n scores (split conformal prediction, exact for
    exchangeable images). Where n is below 1 / false_alarm - 1 no observed score is high enough; the highest is
    returned, whose false-alarm rate is up to 1 / (n + 1).

    Args:
        scores: [n], of normal images.
        false_alarm: 0..1.
    """
    scores = np.sort(np.asarray(scores, np.float64))
    # Rounded, because 100 * (1 - 0.07) is a little more than 93 in floating point.
    rank = math.ceil(round((len(scores) + 1) * (1 - false_alarm), 9))
    return float(scores[min(max(rank, 1), len(scores)) - 1])


def choose_threshold(
    detector: Detector,
    source: Source,
    *,
    false_alarm: float = 0.01,
    protocol: str = "exact-256",
    batch_size: int = 16,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Threshold:
    """Measures the limits on normal images that the detector has not seen: `measure_holdout`, then `choose_limits`.

    Args:
        detector: trained, or with its memory filled.
        source: normal images; those labeled anomalous are refused.
        false_alarm: share of normal images allowed above the limit, above 0 and below 1.
        protocol: of `jaxad.evaluate`; the rule is valid in it alone.
        batch_size, workers, progress: as in `Predictor.stream`.

    Raises:
        DataError: no images, or anomalous ones among them.
        ConfigError: an impossible rate.
        TrainingError: scores or maps that are not finite.
    """
    _check_rate(false_alarm)
    with counted("threshold", len(source), progress) as shown:
        how: dict[str, Any] = {"protocol": protocol, "batch_size": batch_size, "workers": workers, "progress": shown}
        return choose_limits(measure_holdout(detector, source, **how), false_alarm=false_alarm)


def choose_limits(holdout: HoldoutScores, *, false_alarm: float = 0.01, value: float | None = None) -> Threshold:
    """The limits that scores of normal images give; no network is run.

    The image limit is the conformal quantile of the image scores; the pixel limit that of each image's highest pixel,
    so that at most that share of normal images shows any marked pixel. Both are raised by `ROUNDING`. They are chosen
    for each category and for all together.

    Args:
        holdout: the scores.
        false_alarm: share of normal images allowed above the limit, above 0 and below 1.
        value: the image limit of all categories in place of quantiles; pixel limits stay quantiles.

    Raises:
        ConfigError: an impossible rate, or a value that is not finite.
    """
    _check_rate(false_alarm)
    names = np.array(holdout.categories)
    groups = {POOLED: np.ones(len(names), bool), **{name: names == name for name in sorted(set(holdout.categories))}}
    limits = {}
    for name, members in groups.items():
        scores = holdout.scores[members]
        limits[name] = Limits(
            _limit(scores, false_alarm),
            _limit(holdout.peaks[members], false_alarm),
            float(np.median(holdout.medians[members])),
            int(members.sum()),
            spread=float(scores.std()),
        )
    rule = Threshold(false_alarm, holdout.protocol, limits, holdout.files)
    rule = warned(rule) if value is None else overridden(rule, value)
    above = {name: int((holdout.scores[members] > rule.limits[name].image).sum()) for name, members in groups.items()}
    return replace(rule, limits={name: replace(limit, above=above[name]) for name, limit in rule.limits.items()})


def _check_rate(false_alarm: float) -> None:
    if not 0 < false_alarm < 1:
        raise ConfigError(f"false_alarm = {false_alarm}: must lie between 0 and 1")


def _limit(scores: np.ndarray, false_alarm: float) -> float:
    """The quantile, raised so that the image it was measured on stays below in any other batch."""
    quantile = conformal_quantile(scores, false_alarm)
    return quantile + ROUNDING * abs(quantile)


def warned(threshold: Threshold) -> Threshold:
    """The rule with a warning for each rate that names every category with too few normal images for it."""
    pooled, few = apart("all together", threshold.limits), {}
    for name, limit in threshold.limits.items():
        asked = threshold.asked(name)
        if asked is not None and limit.normals < _needed(asked):
            few.setdefault(asked, []).append(f"{name or pooled} {limit.normals}")
    return replace(
        threshold,
        warnings=tuple(
            f"a false-alarm rate of {asked:g} needs {_needed(asked)} hold-out images, but there are: "
            f"{', '.join(names)}. Their threshold is the highest of n normal scores, which a further normal image "
            "passes with a probability of up to 1 / (n + 1)"
            for asked, names in few.items()
        ),
    )


def _needed(false_alarm: float) -> int:
    """Of so many the highest is the quantile; rounded, because 1 / 0.07 may be a little more in floating point."""
    return max(1, math.ceil(round(1 / false_alarm - 1, 9)))
