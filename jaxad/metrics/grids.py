"""Pixel metrics of published code that evaluates a fixed grid of thresholds instead of all of them.

The grid lies between the lowest and the highest score of the category, known only at the end. A threshold splits some
cells of the histograms; how many of their pixels lie above it is taken as half, with a bound that covers the rest.
"""

from __future__ import annotations

import numpy as np

from jaxad.metrics.histogram import ScoreHistogram
from jaxad.metrics.pixels import Measure, PixelScores, between
from jaxad.metrics.rules import AuproGrid


def f1_grid(pixels: PixelScores, steps: int) -> Measure | None:
    """Largest F1 over `steps` thresholds from 0 to 1 on scores scaled to [0, 1] over the category (ADer).

    Returns:
        None where all scores are equal, which cannot be scaled.
    """
    low, high = _range(pixels)
    if low == high:
        return None
    thresholds = low + np.linspace(0, 1, steps) * (high - low)
    (fp_least, fp_most), (tp_least, tp_most) = (_above(h, thresholds) for h in (pixels.normal, pixels.anomalous))
    total = pixels.anomalous.mass.sum()

    def best(tp: np.ndarray, fp: np.ndarray) -> float:
        return float((2 * tp / (total + tp + fp)).max())

    return between(best(tp_least, fp_most), best(tp_most, fp_least))


def aupro_grid(pixels: PixelScores, grid: AuproGrid, limit: float = 0.3) -> Measure | None:
    """Trapezoidal area under PRO over the rescaled FPR of the thresholds whose FPR is below `limit`; no interpolation.

    Returns:
        None where fewer than two thresholds are kept, or all at the same FPR: the area is then undefined.
    """
    low, high = _range(pixels)
    index, step = np.arange(grid.steps), (high - low) / grid.steps
    thresholds = high - index * step if grid.from_top else low + index[::-1] * step
    fpr = np.stack(_above(pixels.normal, thresholds)) / pixels.normal.mass.sum()
    pro = np.stack(_above(pixels.weights, thresholds)) / pixels.regions

    def kept(fpr: np.ndarray) -> int:
        return int((fpr <= limit if grid.at_limit else fpr < limit).sum())

    measure = _rescaled_area(fpr, pro, kept(fpr.mean(axis=0)), grid.rescale)
    if measure is None:
        return None
    # A threshold's FPR may lie on the other side of the limit: cover the areas of fewer and of more points too.
    bound = measure.bound
    for count in range(kept(fpr[1]), kept(fpr[0]) + 1):
        other = _rescaled_area(fpr, pro, count, grid.rescale)
        bound = max(bound, abs(other.value - measure.value) + other.bound if other else 1.0)
    return Measure(measure.value, bound)


def _range(pixels: PixelScores) -> tuple[float, float]:
    ranges = [h.range for h in (pixels.normal, pixels.anomalous) if h.range is not None]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


def _above(histogram: ScoreHistogram, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and most mass strictly above each threshold."""

    def above(scores: np.ndarray) -> np.ndarray:
        order = np.argsort(scores)
        cumulated = np.concatenate([[0.0], np.cumsum(histogram.mass[order])])
        return cumulated[-1] - cumulated[np.searchsorted(scores[order], thresholds, side="right")]

    return above(histogram.lower), above(histogram.upper)


def _rescaled_area(fpr: np.ndarray, pro: np.ndarray, count: int, rescale: str) -> Measure | None:
    """Area under the first `count` points, whose coordinates [2 k] are known to lie between two values each.

    For moves of at most dx and dy, |change of sum (x' - x)(y + y') / 2| is bounded term by term in dy; in dx it is
    summed by parts, because moving an inner point only shifts area from one interval to the next.
    """
    if count < 2:
        return None
    x, y = fpr[:, :count].mean(axis=0), pro[:, :count].mean(axis=0)
    dx, dy = np.ptp(fpr[:, :count], axis=0) / 2, np.ptp(pro[:, :count], axis=0) / 2
    width = x[-1] - (x[0] if rescale == "range" else 0.0)
    if width <= 0:
        return None
    area = float(np.trapezoid(y, x))
    step_x, step_y, mean_y = np.diff(x), np.diff(y), (y[1:] + y[:-1]) / 2
    by_dy = ((step_x + dx[1:] + dx[:-1]) * (dy[1:] + dy[:-1]) / 2).sum()
    by_dx = dx[1:-1] @ (step_y[1:] + step_y[:-1]) / 2 + dx[0] * mean_y[0] + dx[-1] * mean_y[-1]
    by_width = dx[-1] + (dx[0] if rescale == "range" else 0.0)
    if by_width >= width:
        return Measure(area / width, 1.0)
    return Measure(area / width, float((by_dy + by_dx + area / width * by_width) / (width - by_width)))
