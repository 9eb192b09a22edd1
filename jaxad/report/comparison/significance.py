"""Whether a difference between detectors is more than chance: intervals, paired tests, and ranks of several.

Image metrics are tested on images: both methods judge the same ones, so images are the pairs. What a method has of
several seeds is the mean of its metric over them, which is tested as such: what the seeds add to chance is the
deviation beside it. Pixel metrics leave nothing of single images behind; they are tested on categories.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxad.metrics.resampling import resampled
from jaxad.metrics.rules import EXACT, MetricRules

LEVEL = 0.95
"""Of intervals; what remains is the error allowed of tests."""
_CELLS = 4_000_000
"""Numbers that one batch of resamples may take."""


class Pair(NamedTuple):
    """The images of one category as two methods score them.

    Attributes:
        labels: [n] of 0 (normal) and 1 (anomalous).
        first, second: float [s n], a row of scores for each seed of the method; the two may differ in s.
    """

    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclass(frozen=True)
class Difference:
    """The first method less the second one in one metric.

    Attributes:
        value: of the mean over seeds, and over categories where there are several; -1..1.
        low, high: bootstrap interval at `LEVEL`; None where there is too little to draw from.
        bootstrap_p: twice the share of resamples on the other side of 0.
        permutation_p: two-sided p-value of exchanging the methods on single images, or on single categories.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bootstrap_p: float | None = None
    permutation_p: float | None = None


def on_images(
    pairs: Sequence[Pair], metric: str, *, resamples: int, seed: int, rules: MetricRules = EXACT
) -> Difference:
    """The difference in an image metric, by paired resampling of images.

    The bootstrap draws normal and anomalous images of each category anew, the same for both methods and all seeds
    (percentile interval). The permutation test exchanges what the methods say of single images, of all seeds at once.
    It exchanges ranks within the category, since scores of two methods have no common scale (Venkatraman and Begg,
    Biometrika 83, 1996).

    Args:
        pairs: of each category; the metric's mean over them is compared.
        metric: one of `jaxad.metrics.IMAGE_METRICS`.
        resamples: of the bootstrap and of the test; where fewer exchanges are possible the test takes all.
        seed: of the draws.
        rules: of the protocol.
    """
    # Both methods have their seeds equally often, and each of one meets each of the other's where it can.
    pairs = [Pair(pair.labels, *_balanced(pair.first, pair.second)) for pair in pairs]
    each = [np.ones((1, len(pair.labels))) for pair in pairs]
    value = float(_difference(pairs, metric, each, rules)[0])
    return Difference(
        value,
        **_bootstrap(pairs, metric, resamples, np.random.default_rng(seed), rules),
        permutation_p=_exchange_images(pairs, metric, resamples, np.random.default_rng(seed), rules),
    )


def on_categories(first: np.ndarray, second: np.ndarray, *, resamples: int, seed: int) -> Difference:
    """The difference of two methods' mean over categories, by paired resampling of categories.

    Args:
        first, second: float [c], a value for each category.
        resamples, seed: as for `on_images`.
    """
    value = float(np.mean(first - second))
    if len(first) < 2:
        return Difference(value)
    rng = np.random.default_rng(seed)

    def mean(a: np.ndarray, b: np.ndarray, axis: int) -> np.ndarray:
        return np.mean(a - b, axis=axis)

    how = _how(resamples, rng, len(first))
    drawn = stats.bootstrap((first, second), mean, paired=True, method="percentile", **how)
    test = stats.permutation_test((first, second), mean, permutation_type="samples", **how)
    return Difference(value, **_interval(drawn.bootstrap_distribution), permutation_p=float(test.pvalue))


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number by Holm's step-down procedure; None stays, and does not count."""
    known = sorted((value, place) for place, value in enumerate(values) if value is not None)
    adjusted: list[float | None] = [None] * len(values)
    least = 0.0
    for rank, (value, place) in enumerate(known):
        least = max(least, min(1.0, value * (len(known) - rank)))
        adjusted[place] = least
    return adjusted


@dataclass(frozen=True)
class Ranking:
    """Ranks of several methods over categories (Demšar, JMLR 7, 2006).

    Attributes:
        ranks: float [k], mean rank of each method, 1 for the best.
        categories: how many were ranked.
        friedman_p: whether the methods differ at all.
        critical: difference of mean ranks from which two methods differ (Nemenyi, at 1 - `LEVEL`).
        groups: tuples of methods, best first, whose ranks lie within the critical difference; the largest ones alone.
    """

    ranks: np.ndarray
    categories: int
    friedman_p: float
    critical: float
    groups: tuple[tuple[int, ...], ...]


def ranking(values: np.ndarray) -> Ranking | None:
    """The ranks of k methods.

    Args:
        values: float [k c], a metric of each method on each category, higher is better.

    Returns:
        None of fewer than three methods or two categories, of which there is no such test.
    """
    k, categories = values.shape
    if k < 3 or categories < 2:
        return None
    ranks = stats.rankdata(-values, axis=0).mean(axis=1)
    critical = stats.studentized_range.ppf(LEVEL, k, np.inf) / math.sqrt(2) * math.sqrt(k * (k + 1) / (6 * categories))
    # Where all are equal everywhere there is nothing to divide by.
    equal = np.ptp(values, axis=0).max() == 0
    friedman = 1.0 if equal else float(stats.friedmanchisquare(*values).pvalue)
    return Ranking(ranks, categories, friedman, float(critical), _within(ranks, float(critical)))


def _within(ranks: np.ndarray, critical: float) -> tuple[tuple[int, ...], ...]:
    order, groups, reached = np.argsort(ranks, kind="stable"), [], 0
    for begin in range(len(order)):
        end = begin + 1
        while end < len(order) and ranks[order[end]] - ranks[order[begin]] < critical:
            end += 1
        if end - begin > 1 and end > reached:
            groups.append(tuple(int(place) for place in order[begin:end]))
            reached = end
    return tuple(groups)


def _how(resamples: int, rng: np.random.Generator, size: int) -> dict[str, Any]:
    """Arguments of scipy's resampling, of data with so many observations."""
    batch = max(1, _CELLS // size)
    return {"n_resamples": resamples, "vectorized": True, "batch": batch, "random_state": rng}


def _balanced(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both methods' scores [s n] with the same number of rows, each row of one as often as the others."""
    rows = math.lcm(len(first), len(second))
    return tuple(np.tile(scores, (rows // len(scores), 1)) for scores in (first, second))  # type: ignore[return-value]


def _difference(pairs: Sequence[Pair], metric: str, counts: Sequence[np.ndarray], rules: MetricRules) -> np.ndarray:
    """The difference in each resample [r], of counts [r n] for each category."""
    total = np.zeros(len(counts[0]))
    for pair, own in zip(pairs, counts, strict=True):
        for sign, rows in ((1, pair.first), (-1, pair.second)):
            for row, times in zip(*np.unique(rows, axis=0, return_counts=True), strict=True):
                total += sign * times / len(rows) * resampled(metric, row, pair.labels, own, rules)
    return total / len(pairs)


def _bootstrap(
    pairs: Sequence[Pair], metric: str, resamples: int, rng: np.random.Generator, rules: MetricRules
) -> dict[str, float]:
    places = [np.flatnonzero(pair.labels == label) for pair in pairs for label in (0, 1)]
    if min(map(len, places)) < 2:
        return {}

    def statistic(*drawn: np.ndarray, axis: int) -> np.ndarray:
        counts = []
        for number, pair in enumerate(pairs):
            images = np.concatenate([np.atleast_2d(part) for part in drawn[2 * number : 2 * number + 2]], axis=1)
            counts.append(_counted(images, len(pair.labels)))
        found = _difference(pairs, metric, counts, rules)
        return found if drawn[0].ndim > 1 else found[0]

    images = sum(len(pair.labels) for pair in pairs)
    drawn = stats.bootstrap(places, statistic, method="percentile", **_how(resamples, rng, images))
    return _interval(drawn.bootstrap_distribution)


def _counted(images: np.ndarray, number: int) -> np.ndarray:
    """How often each of `number` images stands in each row of indices [r m]; float [r number]."""
    offset = np.arange(len(images))[:, None] * number
    return np.bincount((images + offset).ravel(), minlength=len(images) * number).reshape(-1, number).astype(float)


def _interval(drawn: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    # Each tail counts one resample more than there are: no p-value is 0 for want of resamples.
    tails = [(np.count_nonzero(side) + 1) / (len(drawn) + 1) for side in (drawn <= 0, drawn >= 0)]
    return {"low": float(low), "high": float(high), "bootstrap_p": min(1.0, 2 * min(tails))}


def _exchange_images(
    pairs: Sequence[Pair], metric: str, resamples: int, rng: np.random.Generator, rules: MetricRules
) -> float:
    sizes = [len(pair.labels) for pair in pairs]
    begins, images = np.cumsum([0, *sizes]), sum(sizes)
    # For each category and pair of seeds the ranks of both methods, as one row of 2n.
    ranks = [
        np.concatenate([stats.rankdata(pair.first, axis=1), stats.rankdata(pair.second, axis=1)], axis=1)
        for pair in pairs
    ]

    def statistic(first: np.ndarray, second: np.ndarray, axis: int) -> np.ndarray:
        """Of 0 where an image's ranks in the first role are the first method's, 1 where they are the second one's."""
        roles, total = np.atleast_2d(first), 0.0
        for number, pair in enumerate(pairs):
            other = roles[:, begins[number] : begins[number + 1]]
            labels = np.tile(pair.labels, 2)
            for row in ranks[number]:
                in_first = np.concatenate([1 - other, other], axis=1)
                mine, theirs = (resampled(metric, row, labels, chosen, rules) for chosen in (in_first, 1 - in_first))
                total = total + (mine - theirs) / len(ranks[number])
        found = np.asarray(total) / len(pairs)
        return found if first.ndim > 1 else found[0]

    roles = (np.zeros(images), np.ones(images))
    found = stats.permutation_test(roles, statistic, permutation_type="samples", **_how(resamples, rng, images))
    return float(found.pvalue)
