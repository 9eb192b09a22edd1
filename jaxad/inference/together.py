"""Several evaluations out of one pass: images are read once, and a detector judges once for all protocols."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxad import parallel
from jaxad.data.batches import LoadedBatch
from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.features import FeatureCache
from jaxad.inference.evaluation import Scored, check_labels
from jaxad.inference.predictor import Output, Predictor
from jaxad.inference.programs import processed
from jaxad.metrics import Protocol
from jaxad.types import Batch, Source, View

Raw = tuple[jax.Array, jax.Array | None]
"""A detector's own maps [b h w] and scores [b] or None, before any protocol."""

Judge = Callable[[LoadedBatch, Batch], Iterable[Raw]]
"""What a loaded batch, which is on the devices too, gives for each detector in turn."""


def score_under(
    detector: Detector,
    source: Source,
    protocols: Sequence[str],
    *,
    features: FeatureCache | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Scored]:
    """One pass of a detector, evaluated under several protocols; arguments and errors as of `score`."""
    predictor = Predictor(detector, protocols[0], batch_size=batch_size)

    def judge(loaded: LoadedBatch, batch: Batch) -> Iterator[Raw]:
        yield predictor.raw(batch) if features is None else predictor.raw_of(features, loaded.indices, batch)

    options = {"batch_size": batch_size, "progress": progress}
    return score_together([detector], source, judge, protocols=protocols, **options)[0]  # type: ignore[arg-type]


def score_together(
    detectors: Sequence[Detector],
    source: Source,
    judge: Judge,
    *,
    protocols: Sequence[str],
    views: dict[str, View] | None = None,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[dict[str, Scored]]:
    """Evaluates several detectors in one pass over a source.

    Memory holds one batch, and of each evaluation the metrics' state, which does not grow with the images.

    Args:
        detectors: of the same categories, of whole images.
        source: labeled images.
        judge: judges for all of them.
        protocols: names of evaluation protocols.
        views: renderings of the images that `judge` takes; those of the first detector if not given.
        batch_size: rounded up to a multiple of the number of devices.
        progress: called with the number of images done since the last call.

    Returns:
        For each detector what was scored, by protocol. There are no times: they would be those of all detectors.

    Raises:
        DataError: no test images, images without label, or images that cannot be read.
        ConfigError: a detector of tiles or of a region.
    """
    check_labels(source)
    if any(detector.tiling is not None or detector.regions for detector in detectors):
        raise ConfigError(f"{source.name}: detectors of tiles or of a region are evaluated one by one")
    predictors = [[Predictor(detector, name, batch_size=batch_size) for name in protocols] for detector in detectors]
    every = [[Scored(detector, source, p) for p in own] for detector, own in zip(detectors, predictors, strict=True)]
    rules, first = [predictor.protocol for predictor in predictors[0]], predictors[0][0]
    options: dict[str, Any] = {} if views is None else {"views": views}
    options |= {"masks": partial(_resized, rules), "gray_masks": any(protocol.gray_masks for protocol in rules)}
    for loaded in first.batches(source, None, None, **options):
        batch = parallel.shard_batch(loaded.batch, first.mesh)
        for own, raw in zip(every, _one_ahead(judge(loaded, batch), rules), strict=True):
            for number, (scored, found) in enumerate(zip(own, raw, strict=True)):
                scores, maps = (array[: len(loaded.records)] for array in parallel.to_host(found))
                masks = tuple(None if mask is None else mask[number] for mask in loaded.masks)
                scored.add(Output(scores, maps, loaded._replace(masks=masks)))
        if progress is not None:
            progress(len(loaded.records))
    return [dict(zip(protocols, own, strict=True)) for own in every]


def _one_ahead(found: Iterable[Raw], rules: Sequence[Protocol]) -> Iterator[list[Any]]:
    """Answers under each protocol; the next ones are computed while the last are counted."""
    waiting = None
    for maps, scores in found:
        under = [_process(protocol, maps, scores) for protocol in rules]
        if waiting is not None:
            yield waiting
        waiting = under
    if waiting is not None:
        yield waiting


_process = jax.jit(processed, static_argnums=0)


def _resized(rules: Sequence[Protocol], mask: np.ndarray) -> list[np.ndarray]:
    """A mask as each protocol resizes it."""
    return [protocol.resize_mask(mask) for protocol in rules]
