"""Image metrics of many resamples of the same images at once, as intervals and tests need them by the thousand.

A resample says how often each image is in it. The scores are sorted once, and all resamples share that; the values are
those of `jaxad.metrics.curves` on the images repeated so often.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jaxad.metrics.names import IMAGE_METRICS
from jaxad.metrics.rules import EXACT, MetricRules


def resampled(
    metric: str, scores: np.ndarray, labels: np.ndarray, counts: np.ndarray, rules: MetricRules = EXACT
) -> np.ndarray:
    """An image metric of every resample.

    Args:
        metric: one of `jaxad.metrics.IMAGE_METRICS`.
        scores: float [n], higher is more anomalous.
        labels: [n] of 0 (normal) and 1 (anomalous).
        counts: float [r n], how often each image is in each resample.
        rules: of the protocol.

    Returns:
        float64 [r], 0..1; not a number where a resample has images of one label alone.

    Raises:
        KeyError: another metric.
    """
    order = np.argsort(-scores, kind="stable")
    begins = np.flatnonzero(np.concatenate([[True], np.diff(scores[order]) != 0]))
    anomalous = labels[order] == 1
    sorted_counts = counts[:, order]
    positives, negatives = (
        np.add.reduceat(np.where(chosen, sorted_counts, 0.0), begins, axis=1) for chosen in (anomalous, ~anomalous)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        values = _MEASURES[metric](positives, negatives)
    values = np.where((positives.sum(1) > 0) & (negatives.sum(1) > 0), values, np.nan)
    return np.maximum(values, 1 - values) if rules.flip_auroc and metric == "image_auroc" else values


def _auroc(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    below = negatives.sum(1, keepdims=True) - negatives.cumsum(1)
    return (positives * (below + negatives / 2)).sum(1) / (positives.sum(1) * negatives.sum(1))


def _average_precision(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    found = positives.cumsum(1)
    precision = np.where(positives > 0, found / (found + negatives.cumsum(1)), 0.0)
    return (positives * precision).sum(1) / positives.sum(1)


def _f1_max(positives: np.ndarray, negatives: np.ndarray) -> np.ndarray:
    found = positives.cumsum(1)
    return (2 * found / (found[:, -1:] + found + negatives.cumsum(1))).max(1)


_MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = dict(
    zip(IMAGE_METRICS, (_auroc, _average_precision, _f1_max), strict=True)
)
