"""Pixel metrics of one category in constant memory, each with a bound on its error.

Three histograms hold the scores of normal pixels, of anomalous pixels, and of region weights. Where a cell holds a
range of scores, the truth lies between two extremes: *best*, every anomalous pixel at the upper end of its cell and
every normal one at the lower end, and *worst*, the reverse. All metrics grow when an anomalous pixel rises or a normal
one falls, so each is reported as the middle of its values at the two extremes, with half their distance as the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxad.metrics.curves import Steps
from jaxad.metrics.histogram import RESOLUTION, ScoreHistogram
from jaxad.metrics.regions import region_weights

CHUNK = 1 << 19
"""Pixels counted at once: bounds the working memory of an update, whatever its batch size."""
KEPT = 1 << 20
"""Scores that are kept as they are where metrics look at single thresholds, which may split a cell."""
WAITING = 1 << 18
"""Normal pixels kept back until they are worth counting together: single images are then as cheap as batches."""


class Measure(NamedTuple):
    """A metric's `value`, and a `bound` on its distance from the value of the unbinned scores."""

    value: float
    bound: float


def between(worst: float, best: float) -> Measure:
    """The middle of two extremes and half their distance."""
    return Measure((worst + best) / 2, abs(best - worst) / 2)


class PixelScores:
    """Pixel scores of one category so far.

    Args:
        filled_regions: whether region weights cover the holes of regions, as in WinCLIP.
        resolution: of the histograms; errors are of the order of its inverse.
        exact: scores of each histogram that are kept as they are, as of `ScoreHistogram`.
    """

    def __init__(self, filled_regions: bool = False, resolution: int = RESOLUTION, exact: int = 0):
        self.filled_regions = filled_regions
        self._normal, self.anomalous, self.weights = (ScoreHistogram(resolution, exact) for _ in range(3))
        self.regions = 0
        self._waiting: list[np.ndarray] = []

    @property
    def normal(self) -> ScoreHistogram:
        """Scores of the normal pixels."""
        self._count_waiting()
        return self._normal

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        histograms = (self._normal, self.anomalous, self.weights)
        return sum(histogram.nbytes for histogram in histograms) + sum(scores.nbytes for scores in self._waiting)

    def add(
        self, maps: np.ndarray, masks: list[np.ndarray | None], inside: Sequence[np.ndarray | None] | None = None
    ) -> None:
        """Count the pixels of maps float32 [b h w]; masks are bool [h w], None for an empty one.

        Of `inside`, bool [h w] or None for all, other pixels are not counted, and defects end there.
        """
        if inside is not None and any(part is not None for part in inside):
            for map, mask, part in zip(maps, masks, inside, strict=True):
                self._add_part(map, mask, part)
            return
        per_chunk = max(1, CHUNK // max(1, maps[:1].size))
        for start in range(0, len(maps), per_chunk):
            self._add(maps[start : start + per_chunk], masks[start : start + per_chunk])

    def _add(self, maps: np.ndarray, masks: list[np.ndarray | None]) -> None:
        normal = [maps[i] for i, mask in enumerate(masks) if mask is None or not mask.any()]
        anomalous, region, weights = [], [], []
        for scores, mask in zip(maps, masks, strict=True):
            if mask is None or not mask.any():
                continue
            normal.append(scores[~mask])
            anomalous.append(scores[mask])
            weight, regions = region_weights(mask, self.filled_regions)
            region.append(scores[weight > 0])
            weights.append(weight[weight > 0])
            self.regions += regions
        self._wait(np.concatenate([scores.ravel() for scores in normal]))
        if anomalous:
            self.anomalous.add(np.concatenate(anomalous))
            self.weights.add(np.concatenate(region), np.concatenate(weights))

    def _add_part(self, map: np.ndarray, mask: np.ndarray | None, part: np.ndarray | None) -> None:
        if part is None:
            return self._add(map[None], [mask])
        mask = np.zeros(map.shape, bool) if mask is None else mask & part
        self._wait(map[part & ~mask])
        if mask.any():
            weight, regions = region_weights(mask, self.filled_regions)
            weight = weight * part
            self.anomalous.add(map[mask])
            self.weights.add(map[weight > 0], weight[weight > 0])
            self.regions += regions

    def _wait(self, scores: np.ndarray) -> None:
        self._waiting.append(scores)
        if sum(scores.size for scores in self._waiting) >= WAITING:
            self._count_waiting()

    def _count_waiting(self) -> None:
        if self._waiting:
            self._normal.add(np.concatenate(self._waiting))
            self._waiting = []

    def merge(self, other: PixelScores) -> PixelScores:
        """The pixels of both; associative."""
        whole = PixelScores(self.filled_regions)
        whole._normal = self.normal.merge(other.normal)
        whole.anomalous = self.anomalous.merge(other.anomalous)
        whole.weights = self.weights.merge(other.weights)
        whole.regions = self.regions + other.regions
        return whole

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as plain arrays; the inverse of `from_arrays`."""
        arrays = {
            f"{name}/{key}": array
            for name in ("normal", "anomalous", "weights")
            for key, array in getattr(self, name).to_arrays().items()
        }
        return arrays | {"regions": np.array(self.regions, np.int64)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], filled_regions: bool = False) -> PixelScores:
        """The state from the arrays of `to_arrays`."""
        pixels = cls(filled_regions)
        pixels.regions = int(arrays["regions"])
        for name in ("normal", "anomalous", "weights"):
            own = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
            setattr(pixels, "_normal" if name == "normal" else name, ScoreHistogram.from_arrays(own))
        return pixels

    def undefined(self) -> str | None:
        """Why no metric can be computed, None if they can."""
        if not len(self.anomalous.keys):
            return "no anomalous pixel"
        return None if len(self.normal.keys) else "no normal pixel"

    def measure(self, metric: Callable[[Steps], float]) -> Measure:
        """A metric of the anomalous and the normal pixels."""
        return between(metric(self._worst(self.anomalous)), metric(self._best(self.anomalous)))

    def measure_regions(self, metric: Callable[[Steps], float]) -> Measure:
        """A metric of region overlap and the normal pixels."""
        # Only holes counted as part of a region (`filled_regions`) make the two differ.
        scale = float(self.weights.mass.sum()) / self.regions
        return between(scale * metric(self._worst(self.weights)), scale * metric(self._best(self.weights)))

    def middle(self) -> Steps:
        """Every cell at the middle of its range, for plots."""
        normal, anomalous = ((h.lower + h.upper) / 2 for h in (self.normal, self.anomalous))
        return self._steps(normal, anomalous, self.anomalous)

    def _best(self, positives: ScoreHistogram) -> Steps:
        return self._steps(self.normal.lower, positives.upper, positives)

    def _worst(self, positives: ScoreHistogram) -> Steps:
        return self._steps(self.normal.upper, positives.lower, positives, untied=positives.shifts > 0)

    def _steps(
        self,
        normal: np.ndarray,
        positive: np.ndarray,
        positives: ScoreHistogram,
        untied: np.ndarray | None = None,
    ) -> Steps:
        """Steps with the cells of `normal` and of `positives` at the given scores."""
        distinct, index = np.unique(np.concatenate([normal, positive]), return_inverse=True)
        at_normal, at_positive, size = index[: len(normal)], index[len(normal) :], len(distinct)

        def column(index: np.ndarray, mass: np.ndarray) -> np.ndarray:
            return np.bincount(index, weights=mass, minlength=size)[::-1]

        loose = np.zeros(size) if untied is None else column(at_positive, positives.mass * untied)
        return Steps(column(at_normal, self.normal.mass), column(at_positive, positives.mass), loose)
