"""Ranking metrics from counts by descending score, as scikit-learn and the official MVTec code define them.

With p_i anomalous and n_i normal elements at the i-th highest score and TP_i, FP_i their sums over 1..i, a threshold at
that score gives TPR = TP_i / P, FPR = FP_i / N and precision TP_i / (TP_i + FP_i).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Steps(NamedTuple):
    """Elements by descending score.

    Attributes:
        negatives, positives: float64 [m], normal and anomalous elements at each score; for PRO, `positives` are region
            weights.
        untied: float64 [m], how many of the positives are only known to lie at this score or above it.
    """

    negatives: np.ndarray
    positives: np.ndarray
    untied: np.ndarray


def exact_steps(scores: np.ndarray, labels: np.ndarray) -> Steps:
    """One step for each distinct score of `scores` float [n], with `labels` int [n], 1 for anomalous."""
    distinct, index = np.unique(scores, return_inverse=True)

    def count(label: int) -> np.ndarray:
        return np.bincount(index[labels == label], minlength=len(distinct))[::-1].astype(np.float64)

    return Steps(count(0), count(1), np.zeros(len(distinct)))


def auroc(steps: Steps) -> float:
    """Area under the ROC curve: P(anomalous above normal) + P(tie) / 2."""
    below = steps.negatives.sum() - np.cumsum(steps.negatives)
    return float(steps.positives @ (below + steps.negatives / 2) / (steps.positives.sum() * steps.negatives.sum()))


def average_precision(steps: Steps) -> float:
    """Average precision: sum of (recall step) x (precision after the step).

    Of `untied` positives each counts with its own precision, the least that they can have together.
    """
    found = steps.positives > 0
    p, untied = steps.positives[found], steps.untied[found]
    tp, fp = np.cumsum(steps.positives)[found], np.cumsum(steps.negatives)[found]
    total = ((p - untied) * tp / (tp + fp)).sum()
    # Sum over j = 1..u of (a + j) / (a + j + fp): concave in j, so at least its integral from 1/2 to u + 1/2.
    loose = (untied > 0) & (fp > 0)
    u, fp = untied[loose], fp[loose]
    a = (tp - p)[loose]
    total += untied.sum() - (fp * np.log1p(u / (a + fp + 0.5))).sum()
    return float(total / p.sum())


def f1_max(steps: Steps) -> float:
    """Largest F1 = 2 TP / (P + TP + FP) over all thresholds."""
    tp, fp = np.cumsum(steps.positives), np.cumsum(steps.negatives)
    return float((2 * tp / (tp[-1] + tp + fp)).max())


def aupro(steps: Steps, limit: float = 0.3) -> float:
    """Area under PRO over FPR up to `limit`, cut by linear interpolation, divided by `limit`.

    PRO at a threshold is the mean over regions of the share of each above it: the cumulated region weights.
    """
    fpr, pro = roc(steps)
    width = np.clip(limit - fpr[:-1], 0, np.diff(fpr))
    share = np.divide(width, np.diff(fpr), out=np.ones_like(width), where=np.diff(fpr) > 0)
    return float((width * (pro[:-1] + share * np.diff(pro) / 2)).sum() / limit)


def roc(steps: Steps) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates after each step, [m + 1] each, from (0, 0) to (1, 1)."""
    fpr, tpr = (np.concatenate([[0.0], np.cumsum(c) / c.sum()]) for c in (steps.negatives, steps.positives))
    return fpr, tpr


def roc_points(steps: Steps, most: int) -> np.ndarray:
    """At most `most` points (FPR, TPR) of the ROC curve, [k 2], for plots."""
    return thinned(np.stack(roc(steps), axis=1), most)


def pr_points(steps: Steps, most: int) -> np.ndarray:
    """At most `most` points (recall, precision) of the precision-recall curve, [k 2], from (0, 1), for plots."""
    tp, fp = np.cumsum(steps.positives), np.cumsum(steps.negatives)
    points = np.stack([tp / tp[-1], tp / (tp + fp)], axis=1)
    return thinned(np.concatenate([[[0.0, 1.0]], points]), most)


def thinned(points: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of a curve's points [m 2], at about equal distances along it, both ends kept."""
    if len(points) <= most:
        return points
    length = np.concatenate([[0.0], np.abs(np.diff(points, axis=0)).sum(axis=1).cumsum()])
    chosen = np.searchsorted(length, np.linspace(0, length[-1], most)[1:-1])
    return points[np.unique(np.concatenate([[0], chosen, [len(points) - 1]]))]
