"""Padded batches of resized images, decoded ahead in threads (grain)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import grain
import numpy as np

from jaxad.data.decode import pixel_hash, resize
from jaxad.types import Batch, Record, Source, View


class LoadedBatch(NamedTuple):
    """A batch for the device and what is known of its real images, padding left out.

    Attributes:
        batch: numpy arrays of the full batch size; `valid` marks the real images, which come first.
        records: records of the real images.
        indices: their positions in the source.
        sizes: their original (height, width) in pixels.
    """

    batch: Batch
    records: tuple[Record, ...]
    indices: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]


class _Loaded(NamedTuple):
    views: dict[str, np.ndarray]
    seed: int
    record: Record
    index: int
    size: tuple[int, int]


def batches(
    source: Source,
    views: Mapping[str, View],
    batch_size: int,
    *,
    workers: int = 2,
    indices: Sequence[int] | None = None,
) -> Iterator[LoadedBatch]:
    """Reads a source once, in order.

    Each image is decoded once, whatever the number of views; at most two batches of resized images are held ahead.

    Args:
        source: the images.
        views: the renderings to make, by name.
        batch_size: images in a batch; the last batch is padded with zeros.
        workers: threads that decode; 0 decodes in the caller's thread.
        indices: which images, in this order (repeats allowed); None for all.

    Yields:
        LoadedBatch with images uint8 [b h w 3] by view, seed uint32 [b] (`pixel_hash` of the original image) and valid
        bool [b].

    Raises:
        DataError: an image cannot be decoded; the message names its file.
    """
    order = range(len(source)) if indices is None else [int(index) for index in indices]
    if not order:
        return
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * batch_size)
    loaded = grain.MapDataset.source(order).map(lambda index: _load(source, views, index)).to_iter_dataset(options)
    stream = iter(loaded.batch(batch_size, batch_fn=lambda items: _collate(items, batch_size)))
    try:
        yield from stream
    finally:
        stream.close()


def _load(source: Source, views: Mapping[str, View], index: int) -> _Loaded:
    image, record = source[index]
    height, width = image.shape[:2]
    rendered = {name: resize(image, view) for name, view in views.items()}
    return _Loaded(rendered, pixel_hash(image), record, index, (height, width))


def _collate(items: Sequence[_Loaded], batch_size: int) -> LoadedBatch:
    images = {}
    for name, first in items[0].views.items():
        images[name] = np.zeros((batch_size, *first.shape), np.uint8)
        images[name][: len(items)] = [item.views[name] for item in items]
    seed = np.zeros(batch_size, np.uint32)
    seed[: len(items)] = [item.seed for item in items]
    return LoadedBatch(
        Batch(images=images, seed=seed, valid=np.arange(batch_size) < len(items)),
        records=tuple(item.record for item in items),
        indices=tuple(item.index for item in items),
        sizes=tuple(item.size for item in items),
    )
