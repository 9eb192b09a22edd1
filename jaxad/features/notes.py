"""What a detector asks to know of images besides their pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxad.data.batches import LoadedBatch
from jaxad.detector import Detector, Trainable
from jaxad.errors import DataError, Problem
from jaxad.types import Record


def extras_of(detector: Detector, records: Sequence[Record], *, training: bool) -> dict[str, np.ndarray]:
    """What a detector asks to know of images besides their pixels, for `Batch.extras`: arrays [b ...] by name.

    Token ids of their captions, where the detector takes captions; and, where it is trained and has to know the
    categories of images, "category" int32 [b], places in `Detector.categories`.
    """
    spec, found = detector.inputs, {}
    if spec.tokenize is not None and (spec.captions == "always" or (training and spec.captions == "train")):
        found["caption"] = spec.tokenize([record.caption for record in records])
    if training and spec.needs_category and isinstance(detector, Trainable):
        places = {name: place for place, name in enumerate(detector.categories)}
        found["category"] = np.array([places.get(record.category, -1) for record in records], np.int32)
    return found


def annotated(detector: Detector, loaded: LoadedBatch, *, training: bool, mark: bool = False) -> LoadedBatch:
    """The batch with `Batch.extras` as the detector wants them.

    Args:
        detector: the one that is given the batch.
        loaded: the batch.
        training: whether it is to learn from it.
        mark: whether images that are too small are marked by their problems, as unreadable ones are, and not raised.

    Raises:
        DataError: images of this host that are smaller than the detector can judge; names all of the batch.
    """
    least = detector.inputs.least_side
    small = {
        place: Problem("small image", str(record.file), f"{size[1]} x {size[0]} pixels, fewer than {least} on a side")
        for place, (record, size) in enumerate(zip(loaded.records, loaded.sizes, strict=True))
        if size is not None and min(size) < least and not loaded.problems[place]
    }
    if small and not mark:
        needs = f"{detector.name} needs images whose shorter side is at least {least} pixels"
        raise DataError(f"{needs}; leave these out or give larger ones:", list(small.values()))
    problems = tuple((small[place],) if place in small else known for place, known in enumerate(loaded.problems))
    loaded = loaded._replace(problems=problems)
    padding = len(loaded.batch.valid) - len(loaded.records)
    extras = extras_of(detector, loaded.records, training=training)
    extras = {name: np.pad(array, ((0, padding), *((0, 0),) * (array.ndim - 1))) for name, array in extras.items()}
    return loaded._replace(batch=dataclasses.replace(loaded.batch, extras=extras))
