"""The seven metrics of one category, collected in one pass, and their mean over categories."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxad.errors import ProtocolError
from jaxad.metrics.curves import Steps, aupro, auroc, average_precision, exact_steps, f1_max, pr_points, roc_points
from jaxad.metrics.grids import aupro_grid, f1_grid
from jaxad.metrics.names import IMAGE_METRICS, METRICS, PIXEL_METRICS
from jaxad.metrics.pixels import KEPT, Measure, PixelScores
from jaxad.metrics.rules import EXACT, MetricRules


class ClassMetrics:
    """Scores of one category so far. Image scores are kept; pixel scores are binned in constant memory.

    The state takes 9 bytes for each image, and for pixels nothing at first, about 4 MB after 1e7 scores and little more
    beyond (`nbytes`): 0.6 GB for 160 categories that are collected at once. Under rules of a grid, up to 1e6 scores are
    kept, in 14 MB. Once the last image has come, `finished` gives what is left to keep, without the pixels' state.

    Attributes:
        rules: definitions of the metrics.
        pixels: histograms of the pixel scores.
        without_map: images so far that came without an anomaly map.
        without_mask: anomalous images so far whose mask is unknown.
    """

    def __init__(self, rules: MetricRules = EXACT):
        self.rules = rules
        self.pixels = PixelScores(rules.filled_regions, exact=KEPT if rules.on_grid else 0)
        self.without_map = 0
        self.without_mask = 0
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    @property
    def scores(self) -> np.ndarray:
        """Image scores, float64 [images], in the order given."""
        return np.concatenate([np.empty(0), *self._scores])

    @property
    def labels(self) -> np.ndarray:
        """Image labels, int8 [images], 1 for anomalous."""
        return np.concatenate([np.empty(0, np.int8), *self._labels])

    @property
    def nbytes(self) -> int:
        """Bytes of the state."""
        return self.pixels.nbytes + sum(part.nbytes for part in (*self._scores, *self._labels))

    def update(
        self,
        scores: Any,
        labels: Any,
        maps: Any | None = None,
        masks: Sequence[np.ndarray | None] | np.ndarray | None = None,
        names: Sequence[str] | None = None,
        inside: Sequence[np.ndarray | None] | None = None,
    ) -> None:
        """Add a batch of images; on an error nothing of it is added.

        Args:
            scores: float [b], higher is more anomalous.
            labels: int [b], 0 normal, 1 anomalous.
            maps: float32 [b h w], None where the detector gives none: pixel metrics are then undefined.
            masks: bool [b h w], or for each image bool [h w] or None. None means an empty mask for a normal image and
                an unknown one for an anomalous image, which leaves the category's pixel metrics undefined.
            names: what to call the images in messages.
            inside: for each image bool [h w], the pixels that are judged, or None for all; others are left out.

        Raises:
            ProtocolError: scores or maps that are not finite, labels other than 0 and 1, masks that do not fit their
                map or show a defect on a normal image; lists every image at fault.
        """
        scores, labels = np.asarray(scores, np.float64), np.asarray(labels)
        maps = None if maps is None else np.asarray(maps, np.float32)
        given = [None] * len(scores) if masks is None else list(masks)
        names = names or [f"image {len(self.labels) + i} of the category" for i in range(len(scores))]
        _check(scores, labels, maps, given, names)

        self._scores.append(scores.copy())
        self._labels.append(labels.astype(np.int8))
        if maps is None:
            self.without_map += len(scores)
            return
        known = [i for i in range(len(scores)) if given[i] is not None or labels[i] == 0]
        self.without_mask += len(scores) - len(known)
        if known:
            parts = None if inside is None else [inside[i] for i in known]
            self.pixels.add(maps if len(known) == len(maps) else maps[known], [given[i] for i in known], parts)

    def finished(self) -> ClassResults:
        """Results and curves as they are now, which need no state of the pixels any more."""
        return ClassResults(self.scores, self.labels, self.result(), self.curves())

    def merge(self, other: ClassMetrics) -> ClassMetrics:
        """Metrics of both sets of images, as if collected in one pass; associative, neither argument changes."""
        if other.rules != self.rules:
            raise ProtocolError(f"cannot merge metrics of different rules: {self.rules} and {other.rules}")
        whole = ClassMetrics(self.rules)
        whole.pixels = self.pixels.merge(other.pixels)
        whole._scores, whole._labels = self._scores + other._scores, self._labels + other._labels
        whole.without_map = self.without_map + other.without_map
        whole.without_mask = self.without_mask + other.without_mask
        return whole

    def to_arrays(self) -> dict[str, np.ndarray]:
        """The state as plain arrays, to send or store; the inverse of `from_arrays`."""
        missing = np.array([self.without_map, self.without_mask], np.int64)
        pixels = {f"pixels/{name}": array for name, array in self.pixels.to_arrays().items()}
        return {"scores": self.scores, "labels": self.labels, "missing": missing, **pixels}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], rules: MetricRules = EXACT) -> ClassMetrics:
        """The state from the arrays of `to_arrays`; `rules` must be those it was collected under."""
        metrics = cls(rules)
        metrics._scores, metrics._labels = [np.asarray(arrays["scores"])], [np.asarray(arrays["labels"])]
        metrics.without_map, metrics.without_mask = (int(count) for count in arrays["missing"])
        prefix = "pixels/"
        own = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        metrics.pixels = PixelScores.from_arrays(own, rules.filled_regions)
        return metrics

    def result(self) -> dict[str, Any]:
        """The metrics of the category as in report.json.

        Returns:
            `image_auroc, image_ap, image_f1max, pixel_auroc, pixel_ap, pixel_f1max, aupro` and their mean `mad`, each
            in 0..1 or None; `n_normal`, `n_anomalous`; `undefined`, the reason for every None; `pixel_error_bound`, for
            every defined pixel metric the largest possible effect of binning on it.
        """
        measures: dict[str, Measure] = {}
        undefined: dict[str, str] = {}
        if reason := self._images_undefined():
            undefined.update(dict.fromkeys(IMAGE_METRICS, reason))
        else:
            steps = exact_steps(self.scores, self.labels)
            values = (Measure(metric(steps), 0.0) for metric in (auroc, average_precision, f1_max))
            measures.update(zip(IMAGE_METRICS, values, strict=True))
        if reason := self._pixels_undefined():
            undefined.update(dict.fromkeys(PIXEL_METRICS, reason))
        else:
            measures.update(self._pixel_measures(undefined))
        for name in ("image_auroc", "pixel_auroc"):
            if self.rules.flip_auroc and name in measures:
                value, bound = measures[name]
                measures[name] = Measure(max(value, 1 - value), bound)

        result: dict[str, Any] = {name: measures[name].value if name in measures else None for name in METRICS}
        if undefined:
            undefined["mad"] = f"needs {', '.join(name for name in METRICS if name in undefined)}"
        else:
            result["mad"] = float(np.mean([measure.value for measure in measures.values()]))
        anomalous = int(self.labels.sum())
        return result | {
            "n_normal": len(self.labels) - anomalous,
            "n_anomalous": anomalous,
            "undefined": undefined,
            "pixel_error_bound": {name: measures[name].bound for name in PIXEL_METRICS if name in measures},
        }

    def curves(self, most: int = 500) -> dict[str, np.ndarray]:
        """Curve points for plots, of those curves that are defined.

        Args:
            most: points of each pixel curve at most; image curves are complete.

        Returns:
            `image_roc`, `pixel_roc`: (FPR, TPR); `image_pr`, `pixel_pr`: (recall, precision); float64 [k 2] each.
        """
        curves: dict[str, tuple[Steps, int]] = {}
        if not self._images_undefined():
            curves["image"] = exact_steps(self.scores, self.labels), len(self.labels) + 1
        if not self._pixels_undefined():
            curves["pixel"] = self.pixels.middle(), most
        points = {f"{name}_roc": roc_points(*curve) for name, curve in curves.items()}
        return points | {f"{name}_pr": pr_points(*curve) for name, curve in curves.items()}

    def _images_undefined(self) -> str | None:
        """Why the image metrics are undefined, None if they are not."""
        labels = self.labels
        if not len(labels):
            return "no test images"
        if not labels.any():
            return "no anomalous image"
        return "no normal image" if labels.all() else None

    def _pixels_undefined(self) -> str | None:
        """Why the pixel metrics are undefined, None if they are not."""
        images = len(self.labels)
        if not images:
            return "no test images"
        if self.without_map:
            return f"no anomaly map for {self.without_map} of {images} images"
        if self.without_mask:
            return f"no mask for {self.without_mask} of {int(self.labels.sum())} anomalous images"
        return self.pixels.undefined()

    def _pixel_measures(self, undefined: dict[str, str]) -> dict[str, Measure]:
        rules, pixels = self.rules, self.pixels
        measures = {
            "pixel_auroc": pixels.measure(auroc),
            "pixel_ap": pixels.measure(average_precision),
        }
        if rules.f1_steps is None:
            measures["pixel_f1max"] = pixels.measure(f1_max)
        elif not (measure := f1_grid(pixels, rules.f1_steps)):
            undefined["pixel_f1max"] = "all pixels have the same score, which cannot be scaled to 0..1"
        else:
            measures["pixel_f1max"] = measure
        if rules.aupro_grid is None:
            measures["aupro"] = pixels.measure_regions(lambda steps: aupro(steps, rules.fpr_limit))
        elif not (measure := aupro_grid(pixels, rules.aupro_grid, rules.fpr_limit)):
            steps, limit = rules.aupro_grid.steps, rules.fpr_limit
            undefined["aupro"] = f"fewer than two of the {steps} thresholds give different FPR up to {limit}"
        else:
            measures["aupro"] = measure
        return measures


class ClassResults:
    """What is left of `ClassMetrics` when all images of the category have been counted (`ClassMetrics.finished`).

    It takes some 40 bytes for each image and less than 20 kB for the pixels.

    Attributes:
        scores: image scores, float64 [images], in the order given.
        labels: image labels, int8 [images], 1 for anomalous.
    """

    def __init__(
        self, scores: np.ndarray, labels: np.ndarray, result: Mapping[str, Any], curves: Mapping[str, np.ndarray]
    ):
        self.scores, self.labels, self._result, self._curves = scores, labels, result, curves

    def result(self) -> dict[str, Any]:
        """That of `ClassMetrics.result`, a copy at each call."""
        return copy.deepcopy(dict(self._result))

    def curves(self) -> dict[str, np.ndarray]:
        """Those of `ClassMetrics.curves`."""
        return dict(self._curves)


def summarize(classes: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Macro mean over categories of each metric, leaving out those where it is undefined.

    Args:
        classes: `ClassMetrics.result()` of each category.

    Returns:
        The seven metrics and `mad`; None where a metric is undefined for every category.
    """

    def mean(values: Iterable[float | None]) -> float | None:
        defined = [value for value in values if value is not None]
        return float(np.mean(defined)) if defined else None

    return {name: mean(result[name] for result in classes.values()) for name in METRICS}


def _check(
    scores: np.ndarray,
    labels: np.ndarray,
    maps: np.ndarray | None,
    masks: Sequence[np.ndarray | None],
    names: Sequence[str],
) -> None:
    """Raises ProtocolError listing everything wrong with a batch."""
    lengths = {"scores": len(scores), "labels": len(labels), "masks": len(masks), "names": len(names)}
    if maps is not None:
        lengths["maps"] = len(maps)
    if len(set(lengths.values())) > 1 or (maps is not None and maps.ndim != 3):
        shapes = f"maps of shape {None if maps is None else maps.shape}"
        raise ProtocolError(
            f"a batch needs scores [b], labels [b], maps [b h w], masks [b h w]: got {lengths}, {shapes}"
        )
    problems = []
    for i, (name, score, label, mask) in enumerate(zip(names, scores, labels, masks, strict=True)):
        if not np.isfinite(score):
            problems.append(f"{name}: image score is {score}")
        if label not in (0, 1):
            problems.append(f"{name}: label is {label}, must be 0 (normal) or 1 (anomalous)")
        # Minimum and maximum are not finite if any value is not, and need no array of flags.
        if maps is not None and not (np.isfinite(maps[i].min(initial=0)) and np.isfinite(maps[i].max(initial=0))):
            problems.append(f"{name}: {int((~np.isfinite(maps[i])).sum())} scores of its map are not finite in float32")
        if mask is not None and maps is not None and mask.shape != maps[i].shape:
            sizes = f"{mask.shape} and {maps[i].shape}"
            problems.append(f"{name}: mask and map differ in size, {sizes}: resize both by the same protocol")
        if mask is not None and label == 0 and mask.any():
            problems.append(f"{name}: labeled normal, but its mask shows a defect")
    if problems:
        raise ProtocolError("\n".join(["predictions cannot be evaluated:", *(f"  {p}" for p in problems)]))
