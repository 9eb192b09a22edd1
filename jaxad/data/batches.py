"""Padded batches of resized images, decoded ahead in threads or processes (grain)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import grain
import numpy as np
from absl import flags

from jaxad.data.pixels import pixel_hash, resize
from jaxad.data.sampling import TrainingOrder
from jaxad.data.source import gray_mask_of
from jaxad.data.turns import large_images_in_turn
from jaxad.errors import DataError, Problem
from jaxad.io.problems import problems_of
from jaxad.io.signals import poll
from jaxad.io.threads import cpus
from jaxad.types import Array, Batch, Record, Source, View


class LoadedBatch(NamedTuple):
    """A batch for the device and what is known of its real images, padding left out.

    Attributes:
        batch: numpy arrays of the full batch size. The real images come first, and `valid` is True for those of them
            that could be decoded.
        records: records of the real images.
        indices: their positions in the source.
        sizes: their original (height, width) in pixels, (0, 0) for images that cannot be decoded, None for images that
            another host decodes.
        originals: the decoded images uint8 [h w 3] at their own sizes, None where they were not asked for or where
            this host has none.
        problems: why each image cannot be decoded; empty for all others.
        masks: what was asked for of their defect masks, None for each that has none; empty where nobody asked.
    """

    batch: Batch
    records: tuple[Record, ...]
    indices: tuple[int, ...]
    sizes: tuple[tuple[int, int] | None, ...]
    originals: tuple[np.ndarray | None, ...]
    problems: tuple[tuple[Problem, ...], ...]
    masks: tuple[np.ndarray | None, ...] = ()


class _Loaded(NamedTuple):
    index: int
    views: dict[str, np.ndarray]
    seed: int = 0
    size: tuple[int, int] | None = None
    original: np.ndarray | None = None
    problems: tuple[Problem, ...] = ()
    mask: np.ndarray | None = None


def padded_size(images: int, batch_size: int) -> int:
    """Images of a batch for so few: a power of two, at most `batch_size`, so that few sizes are ever compiled."""
    return min(batch_size, 1 << max(images - 1, 0).bit_length())


def batches(
    source: Source,
    views: Mapping[str, View],
    batch_size: int,
    *,
    workers: int | None = None,
    processes: int = 0,
    indices: Sequence[int] | None = None,
    rows: Sequence[int] | None = None,
    seeds: bool = True,
    originals: bool = False,
    on_unreadable: Literal["raise", "mark"] = "raise",
    masks: Callable[[np.ndarray], np.ndarray] | None = None,
    gray_masks: bool = False,
) -> Iterator[LoadedBatch]:
    """Reads a source once, in order.

    Each image is opened and decoded once, whatever the number of views. At most two batches of resized images are held
    ahead, or one image for each thread; with `originals`, which are large, no more images than there are threads.
    Images, order and bytes are the same whatever `workers`, `processes` and `rows`.

    Args:
        source: the images.
        views: the renderings to make, by name.
        batch_size: images in a batch; the last batch is padded with zeros.
        workers: threads that decode, of each process; None for one per CPU, 0 decodes in the caller's thread.
        processes: processes that decode; 0 decodes in this one. Decoding and resizing leave Python free for other
            threads, so that processes only help where threads do not keep the cores busy (many cores, small images).
            The source must be picklable, and a script that asks for them needs `if __name__ == "__main__":`.
        indices: which images, in this order (repeats allowed); None for all.
        rows: rows of each batch to decode, None for all. The others stay zero: they are those of other hosts
            (`jaxad.parallel.local_rows`).
        seeds: whether to hash the pixels, a quarter of the work; training draws its noise otherwise.
        originals: whether to give the decoded images at their own sizes as well.
        on_unreadable: what to do about an image that cannot be decoded: "raise" an error, or "mark" it: it stays in its
            place as a black image of size (0, 0) whose `valid` is False, and the batch says what is wrong with it.
        masks: what to make of the defect masks, bool [h w], of all rows, in the threads that decode; None reads none.
        gray_masks: whether `masks` takes uint8 [h w], the gray values of masks, of sources that know them.

    Yields:
        LoadedBatch with images uint8 [b h w 3] by view, seed uint32 [b] (`pixel_hash` of the original image, zero
        without `seeds`) and valid bool [b].

    Raises:
        DataError: an image cannot be decoded and `on_unreadable` is "raise", or a mask; the message names its file.
        Stopped: a signal asks to end (`jaxad.io.signals`).
    """
    order = range(len(source)) if indices is None else indices
    if not len(order):
        return
    workers = cpus() if workers is None else workers
    load = _Load(
        source=source,
        views=dict(views),
        order=order,
        batch_size=batch_size,
        rows=None if rows is None else frozenset(rows),
        seeds=seeds,
        originals=originals,
        mark=on_unreadable == "mark",
        masks=masks,
        gray_masks=gray_masks,
    )
    threads = max(workers, 1) * max(processes, 1)
    # Small batches must not leave threads without work.
    ahead = threads if originals else max(2 * batch_size, threads)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=-(-ahead // max(processes, 1)))
    loaded = grain.MapDataset.range(len(order)).map(load).to_iter_dataset(options)
    if processes:
        # Grain reads command-line flags of absl, which nobody else has parsed.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        loaded = loaded.mp_prefetch(grain.MultiprocessingOptions(processes, per_worker_buffer_size=1))
    collate = partial(_collate, source, views, batch_size=batch_size, masks=masks is not None)
    stream = iter(loaded.batch(batch_size, batch_fn=collate))
    try:
        for loaded in stream:
            poll()
            yield loaded
    finally:
        stream.close()


def training_batches(
    source: Source,
    views: Mapping[str, View],
    batch_size: int,
    order: TrainingOrder,
    *,
    start: int,
    steps: int,
    workers: int | None = None,
    processes: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[LoadedBatch]:
    """The batches of training steps `start` to `steps`, shuffled without end as `order` says, without seeds.

    The batch of a step is a function of the step alone: a run that resumes at step `start`, in the middle of an epoch,
    goes on with the images that an undisturbed run would see next.

    Args:
        source, views, batch_size, workers, processes, rows: as in `batches`.
        order: of the source's images.
        start: first step, counted from 0.
        steps: step at which to stop.
    """
    window = _Window(order, start * batch_size, max(steps - start, 0) * batch_size)
    return batches(
        source, views, batch_size, workers=workers, processes=processes, indices=window, rows=rows, seeds=False
    )


@dataclass(frozen=True)
class _Window(Sequence[int]):
    """So many image numbers of an endless order, from one position on."""

    order: TrainingOrder
    start: int
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, position):
        if position >= self.length:
            raise IndexError(position)
        return self.order[self.start + position]


@dataclass(frozen=True)
class _Load:
    """Decodes, hashes and resizes the image at a position of the order, unless its row is another host's."""

    source: Source
    views: dict[str, View]
    order: Sequence[int]
    batch_size: int
    rows: frozenset[int] | None
    seeds: bool
    originals: bool
    mark: bool
    masks: Callable[[np.ndarray], np.ndarray] | None
    gray_masks: bool

    def __call__(self, position: int) -> _Loaded:
        index = int(self.order[position])
        with large_images_in_turn():
            of_others = self.rows is not None and position % self.batch_size not in self.rows
            loaded = _Loaded(index, {}) if of_others else self._loaded(index)
            if self.masks is None:
                return loaded
            mask = gray_mask_of(self.source, index) if self.gray_masks else self.source.mask(index)
            return loaded if mask is None else loaded._replace(mask=self.masks(mask))

    def _loaded(self, index: int) -> _Loaded:
        try:
            image = self.source[index].image
        except DataError as error:
            if not self.mark:
                raise
            problems = problems_of(error, "unreadable image", self.source.records[index].file)
            return _Loaded(index, {}, size=(0, 0), problems=problems)
        height, width = image.shape[:2]
        return _Loaded(
            index,
            views={name: resize(image, view) for name, view in self.views.items()},
            seed=pixel_hash(image) if self.seeds else 0,
            size=(height, width),
            original=image if self.originals else None,
        )


def _collate(
    source: Source, views: Mapping[str, View], items: Sequence[_Loaded], batch_size: int, masks: bool
) -> LoadedBatch:
    # Memory of zeros costs nothing until it is written, so that rows of other hosts take none.
    images: dict[str, Array] = {
        name: np.zeros((batch_size, view.height, view.width, 3), np.uint8) for name, view in views.items()
    }
    seed, valid = np.zeros(batch_size, np.uint32), np.zeros(batch_size, bool)
    for row, item in enumerate(items):
        seed[row], valid[row] = item.seed, not item.problems
        for name, image in item.views.items():
            images[name][row] = image  # type: ignore[index]
    indices = tuple(item.index for item in items)
    return LoadedBatch(
        Batch(images=images, seed=seed, valid=valid),
        records=tuple(source.records[index] for index in indices),
        indices=indices,
        sizes=tuple(item.size for item in items),
        originals=tuple(item.original for item in items),
        problems=tuple(item.problems for item in items),
        masks=tuple(item.mask for item in items) if masks else (),
    )
