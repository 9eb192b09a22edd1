"""What the streaming pixel metrics cost: seconds and memory, measured beside the error made."""

from __future__ import annotations

import json
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from jaxad.bench import benchmarks
from jaxad.metrics import PIXEL_METRICS, ClassMetrics

SIDE = 256
BATCH = 16


def metrics_benchmark(pixels: int = 10_000_000, regions: int = 100) -> dict[str, Any]:
    """Time, memory and error of the streaming pixel metrics on maps of 0.5 + 0.01 z, defects raised by 0.015.

    Args:
        pixels: scores in all, in maps of 256 x 256 fed 16 at a time; rounded up to whole maps.
        regions: square defects, one to a map while there are maps enough.

    Returns:
        `pixels`, `regions`; `seconds` for feeding all maps and computing every metric, and the `cpu_seconds` of
        them that this process ran, which a busy machine does not change much; `peak_mb`, largest growth of
        allocated memory during the same (1e6 bytes, without the maps themselves, measured in a pass of its own);
        `state_mb`, memory kept; `error`, absolute difference to scikit-learn and to AUPRO by sorting, with the
        `bound` computed by jaxad.
    """
    maps, masks = -(-pixels // SIDE**2), _masks(-(-pixels // SIDE**2), regions)
    metrics, seconds = ClassMetrics(), np.zeros(2)
    for batch in _batches(maps, masks):
        start = _clocks()
        metrics.update(*batch)
        seconds += _clocks() - start
    start = _clocks()
    result = metrics.result()
    seconds += _clocks() - start

    exact = _exact(np.concatenate([batch[2] for batch in _batches(maps, masks)]), masks)
    return {
        "pixels": maps * SIDE**2,
        "regions": metrics.pixels.regions,
        "seconds": float(seconds[0]),
        "cpu_seconds": float(seconds[1]),
        "peak_mb": _peak(maps, masks),
        "state_mb": metrics.nbytes / 1e6,
        "error": {name: abs(result[name] - exact[name]) for name in PIXEL_METRICS},
        "bound": result["pixel_error_bound"],
    }


def _clocks() -> np.ndarray:
    """Wall-clock and processor time in seconds, [2]."""
    return np.array([time.perf_counter(), time.process_time()])


def _masks(maps: int, regions: int) -> np.ndarray:
    """Squares of 8 to 40 pixels on a grid of 48, so that no two touch."""
    random, cells = np.random.default_rng(0), SIDE // 48
    if regions > maps * cells**2:
        raise ValueError(f"regions = {regions}: at most {maps * cells**2} fit into {maps} maps")
    masks = np.zeros((maps, SIDE, SIDE), bool)
    for region in range(regions):
        row, column = divmod(region // maps, cells)
        side = random.integers(8, 40)
        masks[region % maps, 48 * row :, 48 * column :][:side, :side] = True
    return masks


def _batches(maps: int, masks: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Image scores, labels, maps and masks; the same at every call."""
    for start in range(0, maps, BATCH):
        mask = masks[start : start + BATCH]
        noise = np.random.default_rng(start).standard_normal(mask.shape, dtype=np.float32)
        scores = np.float32(0.5) + np.float32(0.01) * (noise + np.float32(1.5) * mask)
        yield scores.max(axis=(1, 2)), mask.any(axis=(1, 2)).astype(int), scores, mask


def _peak(maps: int, masks: np.ndarray) -> float:
    """Largest growth of traced memory while feeding and computing, in 1e6 bytes, each batch itself left out."""
    metrics, peak = ClassMetrics(), 0

    def growth(work: Callable[[], object]) -> int:
        outside = tracemalloc.get_traced_memory()[0] - metrics.nbytes
        tracemalloc.reset_peak()
        work()
        return tracemalloc.get_traced_memory()[1] - outside

    tracemalloc.start()
    for batch in _batches(maps, masks):
        peak = max(peak, growth(partial(metrics.update, *batch)))
    peak = max(peak, growth(metrics.result))
    tracemalloc.stop()
    return peak / 1e6


def _exact(maps: np.ndarray, masks: np.ndarray) -> dict[str, float]:
    """The four pixel metrics with every score kept."""
    labels, scores = masks.ravel(), maps.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    return {
        "pixel_auroc": float(roc_auc_score(labels, scores)),
        "pixel_ap": float(average_precision_score(labels, scores)),
        "pixel_f1max": float((2 * precision * recall / np.maximum(precision + recall, 1e-30)).max()),
        "aupro": _exact_aupro(maps, masks),
    }


def _exact_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AUPRO by sorting all scores; the regions are squares, so their labels come from the corners alone."""
    weights = np.zeros(masks.shape)
    for image, top, left in np.argwhere(masks & ~np.roll(masks, 1, axis=1) & ~np.roll(masks, 1, axis=2)):
        side = int(np.argmin(np.append(masks[image, top, left:], False)))
        weights[image, top : top + side, left : left + side] = 1 / side**2
    order = np.argsort(-maps.ravel(), kind="stable")
    last = np.append(np.flatnonzero(np.diff(maps.ravel()[order])), order.size - 1)
    fpr = np.append(0, np.cumsum(~masks.ravel()[order])[last] / (~masks).sum())
    pro = np.append(0, np.cumsum(weights.ravel()[order])[last] / weights.sum())
    cut = np.append(fpr[fpr < limit], limit)
    return float(np.trapezoid(np.interp(cut, fpr, pro), cut) / limit)


def main() -> None:
    """Time the pixel metrics of ten million scores, and compare them with an exact computation."""
    print(json.dumps(metrics_benchmark(), indent=2))


benchmarks.register("metrics", main)
