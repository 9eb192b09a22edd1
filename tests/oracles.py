"""Slow, plain definitions that the metrics are measured against: scikit-learn, sorting, loops over regions."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage import measure
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score


def f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    """Largest F1 on the exact precision-recall curve."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    total = precision + recall
    return float(np.max(np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)))


def aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO over all thresholds by sorting: 8-connected regions, interpolated at FPR `limit`, divided by it.

    Args:
        maps: float [b h w].
        masks: bool [b h w].
    """
    weights, regions = np.zeros(masks.shape), 0
    for image, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            weights[image][labels == region] = 1 / (labels == region).sum()
        regions += count
    order = np.argsort(-maps.ravel(), kind="stable")
    scores, normal, weights = maps.ravel()[order], ~masks.ravel()[order], weights.ravel()[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    fpr = np.append(0, (np.cumsum(normal) / normal.sum())[last_of_ties])
    pro = np.append(0, (np.cumsum(weights) / regions)[last_of_ties])
    below = fpr < limit
    at_limit = np.interp(limit, [fpr[below][-1], fpr[~below][0]], [pro[below][-1], pro[~below][0]])
    return float(auc(np.append(fpr[below], limit), np.append(pro[below], at_limit)) / limit)


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """The three image metrics."""
    return {
        "image_auroc": float(roc_auc_score(labels, scores)),
        "image_ap": float(average_precision_score(labels, scores)),
        "image_f1max": f1_max(labels, scores),
    }


def pixel_metrics(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The four pixel metrics of maps float [b h w] against masks bool [b h w]."""
    labels, scores = masks.ravel(), maps.ravel()
    return {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
        "pixel_f1max": f1_max(labels, scores),
        "aupro": aupro(maps, masks),
    }


def overlap(maps: np.ndarray, masks: np.ndarray, threshold: float) -> tuple[float, float]:
    """FPR and mean per-region overlap of maps > threshold, region by region (DiAD, ADer, Dinomaly)."""
    detected, overlaps = maps.astype(np.float64) > threshold, []
    for above, mask in zip(detected, masks, strict=True):
        for region in measure.regionprops(measure.label(mask, connectivity=2)):
            rows, columns = region.coords.T
            overlaps.append(above[rows, columns].sum() / region.area)
    return (detected & ~masks).sum() / (~masks).sum(), float(np.mean(overlaps))


def overlap_filled(maps: np.ndarray, masks: np.ndarray, threshold: float) -> tuple[float, float]:
    """FPR and mean per-region overlap with holes filled, divided by the area without them (WinCLIP, PromptAD)."""
    detected, overlaps = maps.astype(np.float64) > threshold, []
    for above, mask in zip(detected, masks, strict=True):
        for region in measure.regionprops(measure.label(mask, connectivity=2)):
            top, left, bottom, right = region.bbox
            overlaps.append((above[top:bottom, left:right] & region.image_filled).sum() / region.area)
    return (detected & ~masks).sum() / (~masks).sum(), float(np.mean(overlaps))


def aupro_diad(maps: np.ndarray, masks: np.ndarray, steps: int = 200) -> float:
    """AUPRO of DiAD and Dinomaly: thresholds from the minimum up, FPR < 0.3, FPR / its maximum."""
    low, high = float(maps.min()), float(maps.max())
    points = np.array([overlap(maps, masks, low + k * ((high - low) / steps)) for k in range(steps)])
    fpr, pro = points[points[:, 0] < 0.3].T
    return float(auc(fpr / fpr.max(), pro))


def aupro_ader(maps: np.ndarray, masks: np.ndarray, steps: int = 100) -> float:
    """AUPRO of ADer: as DiAD's, but (FPR - minimum) / (maximum - minimum)."""
    low, high = float(maps.min()), float(maps.max())
    points = np.array([overlap(maps, masks, low + k * ((high - low) / steps)) for k in range(steps)])
    fpr, pro = points[points[:, 0] < 0.3].T
    return float(auc((fpr - fpr.min()) / (fpr.max() - fpr.min()), pro))


def aupro_winclip(maps: np.ndarray, masks: np.ndarray, steps: int = 200) -> float:
    """AUPRO of WinCLIP and PromptAD: thresholds from the maximum down, FPR <= 0.3, filled regions."""
    low, high = float(maps.min()), float(maps.max())
    points = np.array([overlap_filled(maps, masks, high - k * ((high - low) / steps)) for k in range(steps)])
    fpr, pro = points[points[:, 0] <= 0.3].T
    return float(auc((fpr - fpr.min()) / (fpr.max() - fpr.min()), pro))


def f1_ader(maps: np.ndarray, masks: np.ndarray) -> float:
    """Pixel F1 of ADer: 21 thresholds on maps scaled to [0, 1] over the category."""
    scaled = (maps.astype(np.float64) - maps.min()) / (float(maps.max()) - float(maps.min()))
    values = []
    for threshold in np.arange(0.0, 1.0 + 1e-3, 0.05):
        above = scaled > threshold
        precision = (above & masks).sum() / (above.sum() + 1e-8)
        recall = (above & masks).sum() / (masks.sum() + 1e-8)
        values.append(2 * precision * recall / (precision + recall + 1e-8))
    return float(max(values))
