"""Evaluation: predictions through a protocol into metrics, and everything the report shows."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np

from jaxad import metrics
from jaxad.config import to_json
from jaxad.data import DataSet
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.features import FeatureCache
from jaxad.inference.decisions import Decision, counted, decide
from jaxad.inference.maps import heat_scale
from jaxad.inference.predictor import Output, Predictor
from jaxad.inference.threshold import Threshold
from jaxad.inference.tiled import Resolution
from jaxad.io.text import apart, visible
from jaxad.io.version import versions
from jaxad.types import Source

SAMPLED = 1000
"""Pixels of each of the first normal images, from which the cold end of colors is."""


class Scored:
    """An evaluation in progress: metrics of every category, and what figures need besides.

    Of a category whose last image has been counted only results are kept, so that memory does not grow with the number
    of categories where their images come one category after the other, as they do in most sources. In others, all
    categories that are under way are held.

    Attributes:
        detector, source, protocol: as given to `score`.
        classes: by category `metrics.ClassMetrics` while images are to come, then `metrics.ClassResults`.
        heat: (low, high) of the map colors by category, of those whose images have all been counted.
        threshold: the rule that images are decided by, None without one.
        decisions: what came of each image, in the order of the source.
        predictor: the compiled detector.
        resolution: at which maps and masks of tiles are compared.
        seconds, images: of the inference alone, without the first batch, which compiles, and the second, which is under
            way when the first is done.
    """

    def __init__(self, detector: Detector, source: Source, predictor: Predictor, threshold: Threshold | None = None):
        self.detector, self.source, self.predictor, self.threshold = detector, source, predictor, threshold
        self.decisions: list[Decision] = []
        self._content: list[str] = []
        self.protocol = predictor.protocol
        self._counting = {name: self.protocol.class_metrics() for name in source.categories}
        self._to_come = Counter(record.category for record in source.records)
        self.classes: dict[str, metrics.ClassMetrics | metrics.ClassResults] = dict(self._counting)
        self.indices: dict[str, list[int]] = {name: [] for name in source.categories}
        self.heat: dict[str, tuple[float, float]] = {}
        self._normal_values: dict[str, list[np.ndarray]] = {name: [] for name in source.categories}
        self.seconds = 0.0
        self.images = 0
        self.resolution: Resolution = "image"

    def add(self, output: Output) -> None:
        """Counts a batch that has its masks."""
        loaded = output.loaded
        images = zip(loaded.records, loaded.indices, loaded.masks, loaded.sizes, strict=True)
        hashes = loaded.batch.seed[: len(loaded.records)]
        self._content += [f"{r.category}\0{r.label} {h:08x}" for r, h in zip(loaded.records, hashes, strict=True)]
        for place, (record, index, mask, size) in enumerate(images):
            map, score, label = output.maps[place], float(output.scores[place]), int(record.label or 0)
            inside = None if output.inside is None else output.inside[place]
            seen = output.detail(place)
            if inside is not None and mask is not None and seen.mask is not None and seen.inside is not None:
                # A defect outside of the region is nobody's business.
                mask, seen = mask & inside, seen._replace(mask=seen.mask & seen.inside)
                label = int(mask.any() or seen.mask.any()) if label else label  # type: ignore[union-attr]
            label = self.protocol.image_label(label, mask)
            self._counting[record.category].update(
                output.scores[place : place + 1],
                [label],
                map[None],
                [mask],
                [record.identity or str(record.file)],
                [inside],
            )
            self.decisions.append(
                decide(index, record, label, score, seen.map, seen.mask, size, self.threshold, seen.inside)
            )
            self.indices[record.category].append(index)
            values = map.ravel() if inside is None else map[inside]
            if label == 0 and len(values) and len(self._normal_values[record.category]) < 50:
                self._normal_values[record.category].append(values[:: 1 + len(values) // SAMPLED].copy())
            self._to_come[record.category] -= 1
            if not self._to_come[record.category]:
                self._finish(record.category)

    def _finish(self, category: str) -> None:
        """Keeps results alone of a category."""
        self.classes[category] = self._counting.pop(category).finished()
        normal, limit = self._normal_values.pop(category), None
        if self.threshold is not None:
            limit = self.threshold.of(category).pixel
        if normal or limit is not None:
            self.heat[category] = heat_scale(limit, np.concatenate(normal) if normal else None)

    @property
    def content_hash(self) -> str | None:
        """SHA-256 of the images' pixels, labels and categories, in whatever order; None where other hosts saw some."""
        if jax.process_count() > 1:
            return None
        return hashlib.sha256("\n".join(sorted(self._content)).encode()).hexdigest()

    def results(self) -> dict[str, dict[str, Any]]:
        """Metrics by category, those without test images left out."""
        return {name: state.result() for name, state in self.classes.items() if len(state.labels)}


def score(
    detector: Detector,
    source: Source | DataSet,
    *,
    protocol: str = "exact-256",
    threshold: Threshold | None = None,
    features: FeatureCache | None = None,
    resolution: Resolution = "image",
    batch_size: int = 16,
    workers: int | None = None,
    explain: Sequence[str] = (),
    passing: Callable[[Iterator[Output]], Iterator[Output]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """The pass itself, for those who want curves and figures besides the report, or have `features` already.

    See `jaxad.evaluate`, and `Predictor.stream` for `features` and `explain`. `passing` is given the predictions, with
    their images, and gives them back, having made something of them. With `features` or `passing` the speed is not that
    of the detector and is left out of the report.
    """
    source = source.test if isinstance(source, DataSet) else source
    if threshold is not None and threshold.protocol != protocol:
        raise ConfigError(f"protocol = {protocol!r}: the threshold was measured under {threshold.protocol!r}")
    check_labels(source)
    predictor = Predictor(detector, protocol, batch_size=batch_size)
    scored, began = Scored(detector, source, predictor, threshold), 0.0
    scored.resolution = resolution
    how = {"features": features, "resolution": resolution, "workers": workers, "explain": explain}
    outputs = predictor.stream(source, masks=True, originals=passing is not None, progress=progress, **how)  # type: ignore[arg-type]
    for number, output in enumerate(outputs if passing is None else passing(outputs)):
        scored.add(output)
        if number == 0:
            began = time.perf_counter()
        # The second batch is under way by then.
        elif number > 1 and features is None and passing is None:
            scored.images += len(output.scores)
    scored.seconds = time.perf_counter() - began
    return scored


def check_labels(source: Source) -> None:
    """Raises DataError where there are no images, or some without label."""
    if not len(source):
        raise DataError(f"{source.name}: no test images")
    unlabeled = [str(record.file) for record in source.records if record.label is None]
    if unlabeled:
        raise DataError(
            f"{source.name}: {len(unlabeled)} images have no label; evaluation needs test/good and test/DEFECT",
            [Problem("no label", file, "whether it is normal is not known") for file in unlabeled],
        )


def make_report(
    scored: Scored,
    source: Source | DataSet,
    *,
    baseline: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """report.json of a finished pass."""
    threshold = scored.threshold
    classes = scored.results()
    rate = scored.images / scored.seconds if scored.images else None
    report: dict[str, Any] = {
        "protocol": scored.protocol.name,
        "protocol_description": scored.protocol.description,
        "config": {
            "system": scored.detector.name,
            "model": to_json(scored.detector.config),
            **(provenance or {}),
            "threshold": None if threshold is None else _threshold_summary(threshold),
            **_tiles(scored),
            **(
                {"regions": sorted(name or "all" for name, _ in regions)}
                if (regions := scored.detector.regions)
                else {}
            ),
        },
        "environment": {
            "versions": versions(),
            "device": f"{jax.devices()[0].device_kind} x{jax.device_count()} ({platform.machine()})",
            "seconds": scored.seconds,
            "images_per_second": rate,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "data": _describe(source) | {"sha256": {"test": scored.content_hash}},
        "mean": metrics.summarize(classes),
        "classes": classes,
        "notes": list(scored.detector.notes),
    }
    if rate is not None:
        report["environment"]["timed"] = (
            "decoding, network, post-processing and metrics of the test images after the first two batches, "
            f"{scored.images} images"
        )
    if threshold is not None:
        report["decisions"] = counted(scored.decisions, threshold)
    if baseline is not None:
        report["baseline"] = dict(baseline)
    return report


def _describe(source: Source | DataSet) -> dict[str, Any]:
    if isinstance(source, DataSet):
        return {
            "source": visible(source.name),
            "counts": source.counts,
            "licence": source.license or None,
            "bad_files": [
                {"file": visible(p.file), "kind": p.kind, "detail": visible(p.detail)} for p in source.problems
            ],
            "notes": [str(note) for note in source.notes.get("notes", ())],
        }
    counts: dict[str, dict[str, int]] = {name: {"test_normal": 0, "test_anomalous": 0} for name in source.categories}
    for record in source.records:
        counts[record.category]["test_anomalous" if record.label else "test_normal"] += 1
    return {"source": visible(source.name), "counts": counts, "licence": None, "bad_files": []}


def _tiles(scored: Scored) -> dict[str, Any]:
    """How images were cut into tiles, and at which size maps and masks were compared; nothing of whole images."""
    tiling = scored.detector.tiling
    return {} if tiling is None else {"tiles": {**tiling.to_json(), "resolution": scored.resolution}}


def _threshold_summary(threshold: Threshold) -> dict[str, Any]:
    pooled = apart("(pooled)", threshold.limits)
    names = {name: name or pooled for name in threshold.limits}
    return {
        "false_alarm": threshold.false_alarm,
        "value": threshold.value,
        "supported": {names[name]: threshold.supported(name) for name in threshold.limits},
        "limits": {names[name]: dataclasses.asdict(limit) for name, limit in threshold.limits.items()},
        "warnings": list(threshold.warnings),
    }
