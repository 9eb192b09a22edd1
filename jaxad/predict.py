"""Inference: encode, context, reconstruct, score and the protocol's post-processing as one compiled program.

This is the only inference path; evaluation, thresholds, prediction and benchmarks all use `Predictor`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxad import metrics, module_state, parallel, viz
from jaxad.data import ImageList, LoadedBatch, batches
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.features import FeatureCache, annotated
from jaxad.types import Batch, Context, Features, Source

if TYPE_CHECKING:
    from jaxad.threshold import Threshold

NOISE_SEED = 0
"""Seed of all inference noise; images differ by the hash of their pixels (DESIGN 4.3)."""

FAINT = 0.8
"""Share of its highest pixel above which the hottest region of a faint anomaly is drawn."""


@dataclass(frozen=True)
class Output:
    """Predictions of one batch under a protocol, real images only.

    Attributes:
        scores: float32 [b].
        maps: float32 [b h w], resized and smoothed as the protocol says.
        loaded: the batch they belong to.
    """

    scores: np.ndarray
    maps: np.ndarray
    loaded: LoadedBatch


class Predictor:
    """A detector compiled for one batch size under one protocol.

    An image's prediction depends on its pixels alone: not on its path, its batch, its place in it, or the padding.

    Args:
        detector: with its present parameters.
        protocol: name of an evaluation protocol (DESIGN 5), which says how maps are resized, smoothed and scored.
        batch_size: rounded up to a multiple of the number of devices.
        mesh: devices; None for all.
    """

    def __init__(
        self, detector: Detector, protocol: str = "exact-256", *, batch_size: int = 16, mesh: Mesh | None = None
    ):
        self.protocol = metrics.protocol(protocol)
        self.mesh = mesh or parallel.make_mesh()
        self.batch_size = batch_size + -batch_size % self.mesh.size
        self._detector = detector
        self._graphdef, arrays = module_state.split(detector)
        self._arrays = parallel.shard_parameters(arrays, self.mesh)
        self._compiled = jax.jit(self._predict)
        self._compiled_judge = jax.jit(self._judge)
        self._compiled_explain = jax.jit(self._explain)

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """A full, padded batch of host arrays -> scores [b] and maps [b h w] of the protocol, padding included."""
        return parallel.to_host(self._compiled(self._arrays, parallel.shard_batch(batch, self.mesh)))

    def trace(self, batch: Batch) -> jax.stages.Traced:
        """The program for a full batch of such shapes, not yet compiled; a detector without arrays will do."""
        return self._compiled.trace(self._arrays, parallel.shard_batch(batch, self.mesh))

    def stream(
        self,
        source: Source,
        *,
        indices: Sequence[int] | None = None,
        features: FeatureCache | None = None,
        workers: int = 2,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Output]:
        """Predictions of a source in its order, or of the images `indices`; the device works while the next are read.

        `features` of all its images spare the frozen networks where one source is judged several times; they are kept
        in float16, so that results differ by that rounding.

        Raises:
            DataError: an image cannot be read, or its category is needed and unknown.
        """
        waiting: tuple[Any, LoadedBatch] | None = None
        for loaded in self._batches(source, indices, workers):
            batch = parallel.shard_batch(loaded.batch, self.mesh)
            if features is None:
                result = self._compiled(self._arrays, batch)
            else:
                places = [*loaded.indices, *[0] * (self.batch_size - len(loaded.indices))]
                result = self._compiled_judge(self._arrays, parallel.shard_batch(features[places], self.mesh), batch)
            if waiting is not None:
                yield self._output(*waiting, progress)
            waiting = result, loaded
        if waiting is not None:
            yield self._output(*waiting, progress)

    def explain(self, source: Source, indices: Sequence[int], *, workers: int = 2) -> Iterator[dict[str, np.ndarray]]:
        """What lies between image and map, for figures: one dictionary for each of the images `indices`.

        Keys: "before" and, where the system reconstructs, "after", token features [n c]; and every array of the
        context. A system may rename or scale them by its method `explain`.
        """
        for loaded in self._batches(source, indices, workers):
            arrays = self._compiled_explain(self._arrays, parallel.shard_batch(loaded.batch, self.mesh))
            arrays = parallel.to_host(arrays)
            for place in range(len(loaded.records)):
                yield {name: array[place] for name, array in arrays.items()}

    def _batches(self, source: Source, indices: Sequence[int] | None, workers: int) -> Iterator[LoadedBatch]:
        rows = parallel.local_rows(self.batch_size, self.mesh)
        views = self._detector.views
        for loaded in batches(source, views, self.batch_size, workers=workers, indices=indices, rows=rows):
            yield annotated(self._detector, self._with_categories(loaded), training=False)

    def _predict(self, arrays, batch):
        return self._judge(arrays, module_state.merge(self._graphdef, arrays).encode(batch), batch)

    def _judge(self, arrays, features, batch):
        detector: Detector = module_state.merge(self._graphdef, arrays)
        context, reconstruction = _condition(detector, features, batch)
        prediction = detector.score(features, reconstruction, context)
        maps, scores = self.protocol.postprocess(prediction.map)
        return scores if prediction.score is None else prediction.score, maps

    def _explain(self, arrays, batch):
        detector: Detector = module_state.merge(self._graphdef, arrays)
        features = detector.encode(batch)
        return detector.explain(features, *_condition(detector, features, batch))

    def _output(self, result, loaded: LoadedBatch, progress) -> Output:
        scores, maps = parallel.to_host(result)
        real = len(loaded.records)
        if progress is not None:
            progress(real)
        return Output(scores[:real], maps[:real], loaded)

    def _with_categories(self, loaded: LoadedBatch) -> LoadedBatch:
        known = {name: number for number, name in enumerate(self._detector.categories)}
        numbers = [known.get(record.category, -1) for record in loaded.records]
        if self._detector.needs_category and -1 in numbers:
            strangers = sorted({r.category or "(none)" for r, n in zip(loaded.records, numbers, strict=True) if n < 0})
            raise DataError(
                f"{self._detector.name} needs the category of every image and does not know {', '.join(strangers)}; "
                f"it knows {', '.join(known)} (--category NAME)"
            )
        padded = np.array(numbers + [0] * (self.batch_size - len(numbers)), np.int32)
        return loaded._replace(batch=dataclasses.replace(loaded.batch, category=padded))


def _condition(detector: Detector, features: Features, batch: Batch) -> tuple[Context, Features | None]:
    """Context and reconstruction, with one PRNG key for each image from the hash of its pixels."""
    base = jax.random.key(NOISE_SEED)
    keys = jax.vmap(lambda seed: jax.random.fold_in(base, seed))(batch.seed)
    context = detector.context(features, batch)
    return context, detector.reconstruct(features, context, keys)


@dataclass(frozen=True)
class ImagePrediction:
    """The answer for one image.

    Attributes:
        file: its path, or a name for images given as arrays.
        category: as given or found, "" where unknown.
        score: image score; higher is more anomalous.
        threshold: limit of the score, None where the detector has no threshold.
        anomalous: whether the score is above the limit; None without a threshold.
        box: [x0, y0, x1, y1] of the hottest region in pixels of the image (x1, y1 exclusive) if it is anomalous.
        map: float32 [h w] at the image's own size.
        mask: bool [h w], pixels above the pixel limit; None without a threshold.
    """

    file: str
    category: str
    score: float
    threshold: float | None
    anomalous: bool | None
    box: tuple[int, int, int, int] | None
    map: np.ndarray
    mask: np.ndarray | None

    def to_json(self) -> dict[str, Any]:
        """A line of predictions.jsonl (DESIGN 6)."""
        return {
            "file": self.file,
            "category": self.category,
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "box": None if self.box is None else list(self.box),
        }


def predict(
    detector: Detector,
    images: Any,
    *,
    threshold: Threshold | None = None,
    category: str = "",
    protocol: str | None = None,
    batch_size: int = 16,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> list[ImagePrediction]:
    """Judges images; `predict_stream` with all predictions held in memory.

    Args:
        detector: trained, or with its memory filled.
        images: one or several of: path of a file or folder, PIL image, uint8 array [h w 3] or [h w].
        threshold: a `jaxad.Threshold`, e.g. `run.threshold`; None gives scores and maps alone.
        category: which category all images show, where it matters for the threshold or the system.
        protocol: how maps are smoothed and scored; None takes the threshold's, else "exact-256".
        batch_size, workers, progress: as in `Predictor.stream`.

    Returns:
        One prediction for each image, in the order given; folders are read in the order of their paths.

    Raises:
        DataError: no images, or some that cannot be read; lists all of them before work starts.
        ConfigError: a protocol other than the threshold's.
    """
    source = images if isinstance(images, ImageList) else ImageList(images, category)
    check_readable(source, workers)
    stream = predict_stream(
        detector,
        source,
        threshold=threshold,
        protocol=protocol,
        batch_size=batch_size,
        workers=workers,
        progress=progress,
    )
    return list(stream)


def predict_stream(
    detector: Detector,
    source: Source,
    *,
    threshold: Threshold | None = None,
    protocol: str | None = None,
    batch_size: int = 16,
    workers: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ImagePrediction]:
    """Judges the images of a source one by one, in memory that does not grow; arguments as for `predict`."""
    if threshold is not None and protocol not in (None, threshold.protocol):
        raise ConfigError(f"protocol = {protocol!r}: the threshold was measured under {threshold.protocol!r}")
    name = protocol or (threshold.protocol if threshold else "exact-256")
    predictor = Predictor(detector, name, batch_size=min(batch_size, len(source)))
    for output in predictor.stream(source, workers=workers, progress=progress):
        loaded = output.loaded
        for score, map, record, index, size in zip(
            output.scores, output.maps, loaded.records, loaded.indices, loaded.sizes, strict=True
        ):
            # With several hosts, one that another host has decoded.
            size = size or source[index].image.shape[:2]
            yield _judge(float(score), viz.fit(map, size), str(record.file), record.category, threshold)


def check_readable(source: Source, workers: int = 2) -> None:
    """Raises DataError listing every image of the source that cannot be decoded."""

    def problems(index: int) -> list[Problem]:
        try:
            source[index]
        except DataError as error:
            unknown = Problem("unreadable image", str(source.records[index].file), str(error))
            return list(error.problems) or [unknown]
        return []

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = [problem for listed in pool.map(problems, range(len(source))) for problem in listed]
    if found:
        raise DataError(f"{len(found)} of {len(source)} images cannot be read:", found)


def _judge(score: float, map: np.ndarray, file: str, category: str, threshold: Threshold | None) -> ImagePrediction:
    if threshold is None:
        return ImagePrediction(file, category, score, None, None, None, map, None)
    limits = threshold.of(category)
    anomalous, box = score > limits.image, None
    # An anomalous image always has a place to look at, also where no single pixel passes the pixel limit.
    if anomalous and (hottest := viz.hottest_box(map, min(limits.pixel, FAINT * float(map.max())))):
        box = (hottest[0], hottest[1], hottest[2], hottest[3])
    mask = map > limits.pixel
    return ImagePrediction(file, category, score, limits.image, anomalous, box, map, mask)
