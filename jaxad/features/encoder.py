"""A detector's frozen networks as one compiled program over images."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.data.batches import LoadedBatch, batches
from jaxad.detector import Detector
from jaxad.errors import TrainingError
from jaxad.features.kept import abstract_batch, stored, widened
from jaxad.features.notes import annotated
from jaxad.io.program_cache import keep_programs
from jaxad.nn import module_state
from jaxad.nn.precision import with_rounded_parameters
from jaxad.nn.variables import Frozen
from jaxad.types import Batch, Features, Record, Source

T = TypeVar("T")
Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""


class Encoder:
    """A detector's frozen networks as one compiled program over images.

    Args:
        detector: its `encode` is compiled with its present frozen networks, which alone are put on the devices.
        batch_size: images at once; rounded up to a multiple of the number of devices.
        workers: threads that decode images; None for one per CPU.
        mesh: devices; None for all.
        training: whether images have the annotations that the detector learns from, or those that it judges with.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        batch_size: int = 32,
        workers: int | None = None,
        mesh: Mesh | None = None,
        training: bool = True,
    ):
        keep_programs()
        self._mesh = mesh or parallel.make_mesh()
        self.batch_size = batch_size + -batch_size % self._mesh.size
        self._workers, self._training = workers, training
        self._detector = detector
        graphdef, frozen, others = module_state.split(detector, Frozen, ...)
        self._frozen = frozen
        absent = dict.fromkeys(others, np.zeros((0,), np.float32))

        def encode(arrays: Any, batch: Batch) -> Features:
            return module_state.merge(graphdef, {**absent, **arrays}).encode(batch)

        def encode_kept(arrays: Any, batch: Batch) -> tuple[Features, jax.Array]:
            features = jax.tree.map(lambda array: array.astype(stored(array)), encode(arrays, batch))
            return features, _finite(features)

        self._encode = jax.jit(parallel.on_mesh(encode, self._mesh))
        of_batch = parallel.batch_sharding(self._mesh)
        self._encode_kept = jax.jit(parallel.on_mesh(encode_kept, self._mesh), out_shardings=of_batch)
        self._join = jax.jit(_joined, static_argnums=1, out_shardings=of_batch)

    @functools.cached_property
    def _arrays(self) -> Any:
        """The frozen networks on the devices, from the first image on: a cache that is complete has no use for them."""
        return parallel.shard_parameters(with_rounded_parameters(self._detector, self._frozen), self._mesh)

    def stream(
        self, source: Source, *, indices: Sequence[int] | None = None, progress: Progress | None = None
    ) -> Iterator[tuple[Features, LoadedBatch]]:
        """Features of a source in its order, or of the images `indices`.

        Yields:
            Features as numpy arrays of the real images (padding cut off), and the batch they came from.
        """
        made = ((self._encode(self._arrays, batch), loaded) for batch, loaded in self._batches(source, indices))
        for found, loaded in _one_ahead(made):
            features, real = parallel.to_host(found), len(loaded.records)
            yield jax.tree.map(lambda array, real=real: array[:real], features), loaded
            if progress is not None:
                progress(real)

    def kept(
        self, source: Source, *, indices: Sequence[int] | None = None, progress: Progress | None = None
    ) -> Iterator[Features]:
        """As `stream`, in the types in which features are kept, and on the devices, with the padding.

        Raises:
            TrainingError: features that are not finite.
        """
        made = ((self._encode_kept(self._arrays, batch), loaded) for batch, loaded in self._batches(source, indices))
        for (features, finite), loaded in _one_ahead(made):
            _check_finite(parallel.to_host(finite), loaded.records)
            yield features
            if progress is not None:
                progress(len(loaded.records))

    def joined(self, parts: Sequence[Features], images: int) -> Features:
        """The first images of several batches on the devices as one batch there."""
        return self._join(tuple(parts), images)

    def trace(self) -> jax.stages.Traced:
        """The program of `kept`, not yet compiled: for accounts of what it takes; places and runs nothing."""
        shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), self._frozen)
        arrays = parallel.shard_parameters(with_rounded_parameters(self._detector, shapes), self._mesh)
        batch = parallel.shard_batch(abstract_batch(self._detector, self.batch_size), self._mesh)
        return self._encode_kept.trace(arrays, batch)

    def _batches(self, source: Source, indices: Sequence[int] | None) -> Iterator[tuple[Batch, LoadedBatch]]:
        """Batches on the devices, and as they were read."""
        rows, views = parallel.local_rows(self.batch_size, self._mesh), self._detector.inputs.views
        for loaded in batches(source, views, self.batch_size, workers=self._workers, indices=indices, rows=rows):
            loaded = annotated(self._detector, loaded, training=self._training)
            yield parallel.shard_batch(loaded.batch, self._mesh), loaded


class LiveFeatures:
    """Features computed anew at every access, for training without a cache; same access as `FeatureCache`.

    Rounded as those of a cache are.
    """

    def __init__(self, encoder: Encoder, source: Source):
        self._encoder, self._source = encoder, source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Features:
        """Features of the images with these numbers, numpy [b ...], float32 where they are not integers."""
        numbers = [int(index) for index in indices]
        parts = [parallel.to_host(part) for part in self._encoder.kept(self._source, indices=numbers)]
        return jax.tree.map(lambda *arrays: widened(np.concatenate(arrays)[: len(numbers)]), *parts)

    def on_devices(self, indices: Sequence[int] | np.ndarray) -> Features:
        """Features of these images as they would be kept, made on the devices and divided over them."""
        numbers = [int(index) for index in indices]
        return self._encoder.joined([*self._encoder.kept(self._source, indices=numbers)], len(numbers))

    def stream(self) -> Iterator[Features]:
        """All features in order, in batches."""
        done = 0
        for features in self._encoder.kept(self._source):
            real = min(len(features.tokens), len(self) - done)
            yield jax.tree.map(lambda array, real=real: widened(array[:real]), parallel.to_host(features))
            done += real


def _one_ahead(made: Iterator[T]) -> Iterator[T]:
    """What is made, each once the next is begun: devices compute it while the last is fetched, and kept or written.

    They then hold one more batch's results.
    """
    waiting: list[T] = []
    for each in made:
        waiting.append(each)
        if len(waiting) > 1:
            yield waiting.pop(0)
    yield from waiting


def _finite(features: Features) -> jax.Array:
    """Whether all features of each image are finite, bool [b]."""
    floats = [array for array in jax.tree.leaves(features) if jnp.issubdtype(array.dtype, jnp.floating)]
    each = [jnp.isfinite(array).reshape(len(array), -1).all(1) for array in floats]
    return jnp.stack(each).all(0)


def _check_finite(finite: np.ndarray, records: Sequence[Record]) -> None:
    if bad := [str(record.file) for record, good in zip(records, finite, strict=False) if not good]:
        raise TrainingError(
            f"features that are not finite, or too large for float16, of {', '.join(bad)}: the frozen network does not "
            "fit such images, or its weights are damaged; try precision = float32"
        )


def _joined(parts: Sequence[Features], images: int) -> Features:
    return jax.tree.map(lambda *arrays: jnp.concatenate(arrays)[:images], *parts)
