"""Inference: encode, judge and the protocol's post-processing as one compiled program.

This is the only inference path; evaluation, thresholds, prediction and benchmarks all use `Predictor`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxad import metrics, parallel
from jaxad.data import ImageList
from jaxad.data.batches import LoadedBatch, batches
from jaxad.data.depth import read_at
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.features import FeatureCache, annotated
from jaxad.inference.launcher import Launcher, Pending
from jaxad.inference.method import EXPLAINED, OF_MAPS, check_words, one_of, words_of
from jaxad.inference.programs import programs_of
from jaxad.inference.tiled import Resolution, TiledStream
from jaxad.io.program_cache import keep_programs
from jaxad.nn import module_state
from jaxad.nn.precision import with_rounded_parameters
from jaxad.types import Batch, Explanation, Source

OnUnreadable = Literal["raise", "mark"]


class Detail(NamedTuple):
    """An image's map as predictions have it, with its mask and region at that size: what decisions are made of.

    Attributes:
        map: float32 [h w].
        mask: bool [h w], the true defect, None where there is none.
        inside: bool [h w], what is judged, None for all.
    """

    map: np.ndarray
    mask: np.ndarray | None = None
    inside: np.ndarray | None = None


@dataclass(frozen=True)
class Output:
    """Predictions of one batch under a protocol, real images only.

    Attributes:
        scores: float32 [b].
        maps: float32 [b h w], resized and smoothed as the protocol says.
        loaded: the batch they belong to.
        inside: bool [b h w], what is judged of the maps, where that is a region of the images; None for all.
        details: of each image, where `maps` were made smaller to be compared with masks; else empty.
        explanations: of each image, its arrays without b, where pictures of the method were asked for; else empty.
    """

    scores: np.ndarray
    maps: np.ndarray
    loaded: LoadedBatch
    inside: np.ndarray | None = None
    details: tuple[Detail, ...] = ()
    explanations: tuple[Explanation, ...] = ()

    def detail(self, place: int) -> Detail:
        """What the decision about an image is made of."""
        if self.details:
            return self.details[place]
        mask = self.loaded.masks[place] if self.loaded.masks else None
        return Detail(self.maps[place], mask, None if self.inside is None else self.inside[place])


class Predictor:
    """A detector compiled for one batch size under one protocol.

    An image's prediction depends on its pixels alone: not on its path, its batch, its place in it, or the padding.
    Programs are kept with the detector, so that a further predictor of it, also with changed parameters, compiles none.
    Several threads may use one predictor.

    Args:
        detector: with its present parameters.
        protocol: name of an evaluation protocol, which says how maps are resized, smoothed and scored.
        batch_size: rounded up to a multiple of the number of devices.
        mesh: devices; None for all.
    """

    def __init__(
        self, detector: Detector, protocol: str = "exact-256", *, batch_size: int = 16, mesh: Mesh | None = None
    ):
        keep_programs()
        self.protocol = metrics.protocol(protocol)
        self.mesh = mesh or parallel.make_mesh()
        self.batch_size = batch_size + -batch_size % self.mesh.size
        self._detector = detector
        graphdef, self._given = module_state.split(detector)
        size = sum(array.size * array.dtype.itemsize for array in self._given.values())
        self._start = Launcher(self.mesh, self.batch_size, size)
        self._programs = programs_of(detector, graphdef, self.protocol, self.mesh)

    @functools.cached_property
    def arrays(self) -> dict[str, Any]:
        """Of the detector by path, on the devices; those that it rounds as it reads them are rounded (`ROUNDED`)."""
        return parallel.shard_parameters(with_rounded_parameters(self._detector, self._given), self.mesh)

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """A full, padded batch of host arrays -> scores [b] and maps [b h w] of the protocol, padding included."""
        found: tuple[np.ndarray, np.ndarray] = self._start(self._programs.predict, self.arrays, batch)()
        return found

    def trace(self, batch: Batch) -> jax.stages.Traced:
        """The program for a full batch of such shapes, not yet compiled; a detector without arrays will do."""
        return self._programs.predict.trace(self.arrays, parallel.shard_batch(batch, self.mesh))

    def warm(self, category: str = "") -> None:
        """Compiles the program that `stream` runs, on a blank image of a category.

        No region is asked for: it may hold no pixel of any image but those that are to come.
        """
        loaded = self._blank(category)
        if self._detector.tiling is not None or self._detector.regions:
            self._start(self._programs.raw, self.arrays, loaded.batch)()
        else:
            self(loaded.batch)

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """Of which pictures there are any (`jaxad.inference.method`); shapes tell, nothing is compiled or placed."""
        if self._detector.tiling is not None:
            # What lies between a tile and its map is no picture of the image.
            return OF_MAPS
        shapes = {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in self._given.items()}
        arrays = with_rounded_parameters(self._detector, shapes)
        _, explanation = self._programs.explained(EXPLAINED).eval_shape(arrays, self._blank().batch)
        return (*OF_MAPS, *words_of(explanation))

    def check_words(self, words: Sequence[str], *, name: str = "explain") -> tuple[str, ...]:
        """Those of some words that need an explanation.

        Args:
            words: for pictures.
            name: of the parameter that holds them, for the message.

        Raises:
            ConfigError: the detector has no such pictures; says which it has.
        """
        if set(words) - set(OF_MAPS):
            check_words(words, self.words, self._detector.name, name=name)
        return tuple(word for word in EXPLAINED if word in words)

    def stream(
        self,
        source: Source,
        *,
        indices: Sequence[int] | None = None,
        features: FeatureCache | None = None,
        explain: Sequence[str] = (),
        originals: bool = False,
        on_unreadable: OnUnreadable = "raise",
        masks: bool = False,
        resolution: Resolution = "image",
        workers: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[Output]:
        """Predictions of a source in its order, or of the images `indices`; the device works while the next are read.

        `features` of all its images spare the frozen networks where one source is judged several times; they are kept
        in float16, so that results differ by that rounding.

        With `explain`, words for pictures of the method (`jaxad.inference.method`), each image has an explanation that
        holds what these show; not with `features`.

        `originals` and `on_unreadable` are those of `jaxad.data.batches`; an image is marked too where its category is
        needed and unknown, and where its region holds none of its pixels. The score and map of an image that is marked
        mean nothing. With `masks` each batch has the defect masks as the protocol resizes them.

        A detector that was fitted on tiles (`Detector.tiling`) judges tiles: there is an output for each image, whose
        map has the protocol's size for each side of a tile. Where there are masks, maps and masks have the protocol's
        size as a whole, or with the `resolution` "tile" that of the map. One whose `regions` are set keeps scores and
        maps to them.

        Raises:
            DataError: an image cannot be read, its category is needed and unknown, a region holds none of its pixels,
                or there are `features`, which are of whole images, for a detector of tiles or of a region.
            ConfigError: the detector has no such pictures, or they are asked for with `features`.
        """
        if explain and features is not None:
            raise ConfigError(
                f"explain = {' '.join(explain)}: there are no pictures of features that were computed before"
            )
        words = self.check_words(explain)
        tiling, regions = self._detector.tiling, dict(self._detector.regions)
        if tiling is not None or regions:
            if features is not None:
                raise DataError(f"{source.name}: features of whole images serve no detector of tiles or of a region")
            views, judge = self._detector.inputs.views, functools.partial(self._raw_explained, words)
            tiled = TiledStream(tiling, views, self.batch_size, self.protocol, judge, regions, workers)
            # The loader makes views of whole images, and hands on those of which tiles are to be cut.
            how = {"originals": originals or tiling is not None, "on_unreadable": on_unreadable}
            how["views"] = views if tiling is None else {}
            if masks:
                how |= {"masks": _whole, "gray_masks": self.protocol.gray_masks}
            one_by_one = self.batches(source, indices, workers, tiled=True, **how)
            options = {"mark": on_unreadable == "mark", "masks": masks, "resolution": resolution}
            yield from tiled(one_by_one, originals=originals, progress=progress, **options)
            return
        waiting: tuple[Pending, LoadedBatch] | None = None
        options = {"originals": originals, "on_unreadable": on_unreadable}
        if masks:
            options |= {"masks": self.protocol.resize_mask, "gray_masks": self.protocol.gray_masks}
        for loaded in self.batches(source, indices, workers, **options):
            if features is not None:
                known = self._filled(features, loaded.indices)
                result = self._start(self._programs.judge, self.arrays, known, loaded.batch)
            else:
                program = self._programs.explained(words) if words else self._programs.predict
                result = self._start(program, self.arrays, loaded.batch)
            if waiting is not None:
                yield self._output(*waiting, bool(words), progress)
            waiting = result, loaded
        if waiting is not None:
            yield self._output(*waiting, bool(words), progress)

    def explain(
        self, source: Source, indices: Sequence[int], *, workers: int | None = None
    ) -> Iterator[tuple[Explanation, np.ndarray | None]]:
        """What lies between image and anomaly map, for figures: one explanation, its arrays without b, for each image.

        Beside it comes the image, uint8 [h w 3], None where another host has decoded it.

        Args:
            source: the images.
            indices: which of them, in this order.
            workers: threads that decode images; None for one per CPU.
        """
        if not (words := self.check_words(self.words)):
            # What lies between a tile and its map is no figure of the image.
            yield from ((Explanation(), None) for _ in indices)
            return
        for output in self.stream(source, indices=indices, explain=words, originals=True, workers=workers):
            yield from zip(output.explanations, output.loaded.originals, strict=True)

    def batches(
        self, source: Source, indices: Sequence[int] | None, workers: int | None, tiled: bool = False, **options: Any
    ) -> Iterator[LoadedBatch]:
        """The images as the detector sees them, on the host.

        Args:
            source, indices, workers: as in `stream`.
            tiled: whether maps are to be put together of tiles: one image after the other, on every host.
            options: of `jaxad.data.batches`; "views" in place of the detector's.
        """
        rows = None if tiled else parallel.local_rows(self.batch_size, self.mesh)
        views, images = options.pop("views", self._detector.inputs.views), 1 if tiled else self.batch_size
        source = read_at(source, dict(self._detector.depths))
        mark = options.get("on_unreadable") == "mark"
        for loaded in batches(source, views, images, workers=workers, indices=indices, rows=rows, **options):
            yield annotated(self._detector, self._with_categories(loaded, mark), training=False, mark=mark)

    def raw(self, batch: Batch) -> Any:
        """The detector's own maps [b h w] of a full, padded batch, and its scores [b] or None, before the protocol."""
        return self._start.whole(self._programs.raw, self.arrays, batch)

    def raw_of(self, features: FeatureCache, indices: Sequence[int], batch: Batch) -> Any:
        """The same of images whose features are computed already, by their numbers."""
        return self._start.whole(self._programs.raw_of, self.arrays, self._filled(features, indices), batch)

    def _filled(self, features: FeatureCache, indices: Sequence[int]) -> Any:
        """Features of those images, filled up to a batch."""
        return features[[*indices, *[0] * (self.batch_size - len(indices))]]

    def _raw_explained(self, words: tuple[str, ...], batch: Batch) -> Pending:
        """What `raw` gives, and an explanation of what pictures of these words show, None without words."""
        if words:
            return self._start(self._programs.explained(words, raw=True), self.arrays, batch)
        found = self._start(self._programs.raw, self.arrays, batch)
        return lambda: (found(), None)

    def _blank(self, category: str = "") -> LoadedBatch:
        """A batch of one image without content, of a category."""
        inputs = self._detector.inputs
        side = max(inputs.least_side, *(max(view.height, view.width) for view in inputs.views.values()))
        blank = ImageList([np.zeros((side, side, 3), np.uint8)], category or next(iter(self._detector.categories), ""))
        (loaded,) = self.batches(blank, None, 0)
        return loaded

    def _output(self, result: Pending, loaded: LoadedBatch, explained: bool, progress) -> Output:
        (scores, maps), explanation = result() if explained else (result(), None)
        real = len(loaded.records)
        if progress is not None:
            progress(real)
        explanations = () if explanation is None else tuple(one_of(explanation, place) for place in range(real))
        return Output(scores[:real], maps[:real], loaded, explanations=explanations)

    def _with_categories(self, loaded: LoadedBatch, mark: bool) -> LoadedBatch:
        known = {name: number for number, name in enumerate(self._detector.categories)}
        # Where there is only one category, nobody has to name it.
        unnamed = 0 if len(known) == 1 else -1
        numbers = [known.get(record.category, -1 if record.category else unnamed) for record in loaded.records]
        if self._detector.inputs.needs_category and -1 in numbers:
            needs, knows = f"{self._detector.name} needs the category of every image", ", ".join(known)
            strangers = [r for r, number in zip(loaded.records, numbers, strict=True) if number < 0]
            names = ", ".join(sorted({record.category or "(none)" for record in strangers}))
            if not mark:
                raise DataError(f"{needs} and does not know {names}; it knows {knows} (`category`)")
            detail = f"{needs}; it knows {knows}"
            problems = tuple(
                found or ((Problem("unknown category", str(record.file), detail),) if number < 0 else ())
                for found, record, number in zip(loaded.problems, loaded.records, numbers, strict=True)
            )
            loaded, numbers = loaded._replace(problems=problems), [max(number, 0) for number in numbers]
        padded = np.array(numbers + [0] * (self.batch_size - len(numbers)), np.int32)
        return loaded._replace(batch=dataclasses.replace(loaded.batch, category=padded))


def _whole(mask: np.ndarray) -> np.ndarray:
    return mask
