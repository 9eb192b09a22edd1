"""Pixel metrics of published code that evaluates a fixed grid of thresholds instead of all of them.

The grid lies between the lowest and the highest score of the category, known only at the end. A threshold splits some
cells of the histograms; the share of their pixels that lies above it is taken as that of their range, with a bound that
covers the rest. Categories of up to `jaxad.metrics.pixels.KEPT` normal pixels have no cells to split.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxad.metrics.histogram import ScoreHistogram
from jaxad.metrics.pixels import Measure, PixelScores
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
    fp, tp = (_above(histogram, thresholds) for histogram in (pixels.normal, pixels.anomalous))
    total = pixels.anomalous.mass.sum()

    def best(tp: np.ndarray, fp: np.ndarray) -> float:
        return float((2 * tp / (total + tp + fp)).max())

    value = best(tp.likely, fp.likely)
    return Measure(value, max(value - best(tp.least, fp.most), best(tp.most, fp.least) - value))


def aupro_grid(pixels: PixelScores, grid: AuproGrid, limit: float = 0.3) -> Measure | None:
    """Trapezoidal area under PRO over the rescaled FPR of the thresholds whose FPR is below `limit`; no interpolation.

    Returns:
        None where fewer than two thresholds are kept, or all at the same FPR: the area is then undefined.
    """
    low, high = _range(pixels)
    index, step = np.arange(grid.steps), (high - low) / grid.steps
    thresholds = high - index * step if grid.from_top else low + index[::-1] * step
    fpr = _Above(*(mass / pixels.normal.mass.sum() for mass in _above(pixels.normal, thresholds)))
    pro = _Above(*(mass / pixels.regions for mass in _above(pixels.weights, thresholds)))

    def kept(fpr: np.ndarray) -> int:
        return int((fpr <= limit if grid.at_limit else fpr < limit).sum())

    measure = _rescaled_area(fpr, pro, kept(fpr.likely), grid.rescale)
    if measure is None:
        return None
    # A threshold's FPR may lie on the other side of the limit: cover the areas of fewer and of more points too.
    bound = measure.bound
    for count in range(kept(fpr.most), kept(fpr.least) + 1):
        other = _rescaled_area(fpr, pro, count, grid.rescale)
        bound = max(bound, abs(other.value - measure.value) + other.bound if other else 1.0)
    return Measure(measure.value, bound)


def _range(pixels: PixelScores) -> tuple[float, float]:
    ranges = [h.range for h in (pixels.normal, pixels.anomalous) if h.range is not None]
    return min(low for low, _ in ranges), max(high for _, high in ranges)


class _Above(NamedTuple):
    """Mass strictly above each threshold, float64 [k] each: at least, as it is taken, and at most."""

    least: np.ndarray
    likely: np.ndarray
    most: np.ndarray


def _above(histogram: ScoreHistogram, thresholds: np.ndarray) -> _Above:
    """The mass above each threshold [k], ascending or descending."""
    if thresholds[0] > thresholds[-1]:
        return _Above(*(mass[::-1] for mass in _above(histogram, thresholds[::-1])))
    lower, upper, mass = histogram.lower, histogram.upper, histogram.mass

    def above(scores: np.ndarray) -> np.ndarray:
        order = np.argsort(scores)
        cumulated = np.concatenate([[0.0], np.cumsum(mass[order])])
        return cumulated[-1] - cumulated[np.searchsorted(scores[order], thresholds, side="right")]

    # Which thresholds split which cells.
    first, after = (np.searchsorted(thresholds, scores, side="left") for scores in (lower, upper))
    split = np.flatnonzero(after > first)
    times = (after - first)[split]
    cells = np.repeat(split, times)
    places = first[cells] + np.arange(len(cells)) - np.repeat(np.cumsum(times) - times, times)
    shares = (upper[cells] - thresholds[places]) / (upper[cells] - lower[cells])
    least = above(lower)
    return _Above(
        least, least + np.bincount(places, weights=mass[cells] * shares, minlength=len(thresholds)), above(upper)
    )


def _rescaled_area(fpr: _Above, pro: _Above, count: int, rescale: str) -> Measure | None:
    """Area under the first `count` points, each of whose coordinates is known to lie between two values.

    For moves of at most dx and dy, |change of sum (x' - x)(y + y') / 2| is bounded term by term in dy; in dx it is
    summed by parts, because moving an inner point only shifts area from one interval to the next.
    """
    if count < 2:
        return None
    x, y = fpr.likely[:count], pro.likely[:count]
    dx, dy = (np.maximum(one.most - one.likely, one.likely - one.least)[:count] for one in (fpr, pro))
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
