"""Frozen features, computed once: a compiled stream through `encode`, and a cache in memory or on disk."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import to_json
from jaxad.data.batches import LoadedBatch, batches
from jaxad.detector import Detector
from jaxad.errors import DataError, Problem, TrainingError
from jaxad.io.digests import MANIFEST, DamageError, read_manifest, write_manifest
from jaxad.io.npy import map_npy
from jaxad.io.program_cache import keep_programs
from jaxad.nn import module_state
from jaxad.nn.precision import with_rounded_kernels
from jaxad.nn.variables import Frozen
from jaxad.types import Batch, Features, Record, Source

Progress = Callable[[int], None]
"""Called with the number of images done since the last call."""


class Encoder:
    """A detector's frozen networks as one compiled program over images.

    Args:
        detector: its `encode` is compiled with its present frozen networks, which alone are put on the devices.
        batch_size: images at once; rounded up to a multiple of the number of devices.
        workers: threads that decode images; None for one per CPU.
        mesh: devices; None for all.
    """

    def __init__(
        self, detector: Detector, *, batch_size: int = 32, workers: int | None = None, mesh: Mesh | None = None
    ):
        keep_programs()
        self._mesh = mesh or parallel.make_mesh()
        self.batch_size = batch_size + -batch_size % self._mesh.size
        self._workers = workers
        self._detector = detector
        graphdef, frozen, others = module_state.split(detector, Frozen, ...)
        self._frozen = frozen
        absent = dict.fromkeys(others, np.zeros((0,), np.float32))

        def encode(arrays: Any, batch: Batch) -> Features:
            return module_state.merge(graphdef, {**absent, **arrays}).encode(batch)

        def encode_kept(arrays: Any, batch: Batch) -> tuple[Features, jax.Array]:
            features = jax.tree.map(lambda array: array.astype(_stored(array)), encode(arrays, batch))
            return features, _finite(features)

        self._encode = jax.jit(parallel.on_mesh(encode, self._mesh))
        of_batch = parallel.batch_sharding(self._mesh)
        self._encode_kept = jax.jit(parallel.on_mesh(encode_kept, self._mesh), out_shardings=of_batch)
        self._join = jax.jit(_joined, static_argnums=1, out_shardings=of_batch)

    @functools.cached_property
    def _arrays(self) -> Any:
        """The frozen networks on the devices, from the first image on: a cache that is complete has no use for them."""
        return parallel.shard_parameters(with_rounded_kernels(self._detector, self._frozen), self._mesh)

    def stream(
        self, source: Source, *, indices: Sequence[int] | None = None, progress: Progress | None = None
    ) -> Iterator[tuple[Features, LoadedBatch]]:
        """Features of a source in its order, or of the images `indices`.

        Yields:
            Features as numpy arrays of the real images (padding cut off), and the batch they came from.
        """
        for batch, loaded in self._batches(source, indices):
            features = parallel.to_host(self._encode(self._arrays, batch))
            real = len(loaded.records)
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
        for batch, loaded in self._batches(source, indices):
            features, finite = self._encode_kept(self._arrays, batch)
            _check_finite(parallel.to_host(finite), loaded.records)
            yield features
            if progress is not None:
                progress(len(loaded.records))

    def joined(self, parts: Sequence[Features], images: int) -> Features:
        """The first images of several batches on the devices as one batch there."""
        return self._join(tuple(parts), images)

    def _batches(self, source: Source, indices: Sequence[int] | None) -> Iterator[tuple[Batch, LoadedBatch]]:
        """Batches on the devices, and as they were read."""
        rows, views = parallel.local_rows(self.batch_size, self._mesh), self._detector.inputs.views
        for loaded in batches(source, views, self.batch_size, workers=self._workers, indices=indices, rows=rows):
            loaded = annotated(self._detector, loaded, training=True)
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
        return jax.tree.map(lambda *arrays: _widened(np.concatenate(arrays)[: len(numbers)]), *parts)

    def on_devices(self, indices: Sequence[int] | np.ndarray) -> Features:
        """Features of these images as they would be kept, made on the devices and divided over them."""
        numbers = [int(index) for index in indices]
        return self._encoder.joined([*self._encoder.kept(self._source, indices=numbers)], len(numbers))

    def stream(self) -> Iterator[Features]:
        """All features in order, in batches."""
        done = 0
        for features in self._encoder.kept(self._source):
            real = min(len(features.tokens), len(self) - done)
            yield jax.tree.map(lambda array, real=real: _widened(array[:real]), parallel.to_host(features))
            done += real


class FeatureCache:
    """Features of every image of a source, random access, stored as float16; integers as they are.

    Make one with `FeatureCache.build`. Standardized features are rounded far below their noise; DINOv2's largest
    channels lie well inside float16.
    """

    def __init__(self, arrays: Features, identity: str):
        self.arrays = arrays
        self.identity = identity

    def __len__(self) -> int:
        return len(self.arrays.tokens)

    @property
    def bytes(self) -> int:
        """Size of the cache."""
        return sum(array.nbytes for array in jax.tree.leaves(self.arrays))

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Features:
        """Features of the images with these numbers, numpy [b ...], float32 where they are not integers."""
        return jax.tree.map(_widened, self.kept(indices))

    def kept(self, indices: Sequence[int] | np.ndarray) -> Features:
        """The same as they are kept: float16 in place of float32."""
        return jax.tree.map(lambda array: array[np.asarray(indices)], self.arrays)

    def stream(self, batch_size: int = 64) -> Iterator[Features]:
        """All features in order, in batches; the last may be smaller."""
        for start in range(0, len(self), batch_size):
            yield self[np.arange(start, min(start + batch_size, len(self)))]

    @staticmethod
    def size(detector: Detector, images: int) -> int:
        """Bytes that the features of so many images take, known without computing any."""
        leaves = jax.tree.leaves(_abstract(detector))
        return images * sum(_stored(leaf).itemsize * int(np.prod(leaf.shape[1:])) for leaf in leaves)

    @classmethod
    def build(
        cls,
        detector: Detector,
        source: Source,
        *,
        folder: Path | None = None,
        encoder: Encoder | None = None,
        progress: Progress | None = None,
        warn: Callable[[Sequence[str]], None] = lambda texts: None,
    ) -> FeatureCache:
        """Encodes a source once.

        Args:
            detector: its `encode` and frozen networks.
            source: the images, all held.
            folder: where to keep the arrays on disk, memory-mapped; None keeps them in memory. A finished cache of the
                same images and network found there is used once all its bytes are found to be those that were
                written; one that is unfinished or damaged is begun anew.
            encoder: compiled already; None compiles one with its defaults.
            progress: called after every batch.
            warn: told of a damaged cache.

        Raises:
            DataError: the folder's disk has too little room; says how much is needed.
            TrainingError: features that are not finite.
        """
        identity = cache_identity(detector, source)
        spec = _abstract(detector)
        if folder is not None and parallel.all_agree(_is_whole(folder, identity, spec, warn)):
            return cls._open(folder, identity, spec)
        # All processes take part in encoding; on the disk they share, one writes.
        writes = folder is None or parallel.is_main_process()
        if folder is not None and writes:
            _clear(folder, cls.size(detector, len(source)))

        def allocate(number: int, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            shape = (len(source), *leaf.shape[1:])
            if folder is None:
                return np.empty(shape, _stored(leaf))
            return np.lib.format.open_memmap(folder / f"{number}.npy", "w+", _stored(leaf), shape)

        leaves, structure = jax.tree.flatten(spec)
        arrays = [allocate(number, leaf) for number, leaf in enumerate(leaves)] if writes else []
        start = 0
        for features in (encoder or Encoder(detector)).kept(source, progress=progress):
            for array, leaf in zip(arrays, jax.tree.leaves(parallel.to_host(features)), strict=False):
                array[start : start + len(leaf)] = leaf[: len(source) - start]
            start += len(features.tokens)
        if folder is None:
            return cls(jax.tree.unflatten(structure, arrays), identity)
        if writes:
            for array in arrays:
                array.flush()  # type: ignore[union-attr]
            write_manifest(folder, (f"{number}.npy" for number in range(len(arrays))), identity=identity)
        parallel.wait_for_others("features written")
        return cls._open(folder, identity, spec)

    @classmethod
    def _open(cls, folder: Path, identity: str, spec: Features) -> FeatureCache:
        leaves, structure = jax.tree.flatten(spec)
        arrays = [_mapped(folder / f"{number}.npy", leaf) for number, leaf in enumerate(leaves)]
        return cls(jax.tree.unflatten(structure, arrays), identity)


def cache_identity(detector: Detector, source: Source) -> str:
    """Hash of all that features depend on: the images by their fingerprints, their annotations, networks, views."""
    hasher = hashlib.sha256()
    for index in range(len(source)):
        # A fingerprint may hold the name of a file, which need not be UTF-8.
        hasher.update(f"{source.fingerprint(index)}\n".encode("utf-8", "surrogatepass"))
    spec, pretrained = detector.inputs, detector.pretrained
    hasher.update(repr(sorted(spec.views.items())).encode())
    weights = None if pretrained is None else (pretrained.id, pretrained.sha256)
    identity = (detector.name, to_json(detector.config), weights) if spec.identity is None else spec.identity
    hasher.update(repr(identity).encode())
    for name, array in sorted(extras_of(detector, source.records, training=True).items()):
        hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def abstract_features(detector: Detector, images: int) -> Features:
    """Shapes and types of so many images' features as they are kept."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((images, *leaf.shape[1:]), _stored(leaf)), _abstract(detector)
    )


def features_of(
    detector: Detector, source: Source, features: FeatureCache | None = None, progress: Progress | None = None
) -> Iterator[Features]:
    """The features of a source in its order, in batches: from a cache of them, or computed now.

    Args:
        detector: whose `encode` makes them.
        source: the images.
        features: of all of them, where they are computed already.
        progress: called after every batch that is computed.
    """
    if features is not None:
        yield from features.stream()
    else:
        yield from (computed for computed, _ in Encoder(detector).stream(source, progress=progress))


def extras_of(detector: Detector, records: Sequence[Record], *, training: bool) -> dict[str, np.ndarray]:
    """What a detector asks to know of images besides their pixels, for `Batch.extras`: arrays [b ...] by name.

    Token ids of their captions, where the detector takes captions.
    """
    spec = detector.inputs
    if spec.tokenize is None or not (spec.captions == "always" or (training and spec.captions == "train")):
        return {}
    return {"caption": spec.tokenize([record.caption for record in records])}


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


def _mapped(file: Path, leaf: Any) -> np.ndarray:
    """The features in a file; `leaf` is one image's."""
    return map_npy(file, _stored(leaf), leaf.shape[1:], lambda said: DataError(f"{file}: {said}; remove it"))


def _stored(leaf: Any) -> np.dtype:
    """The type in which an array of features is kept."""
    return np.dtype(np.float16) if jnp.issubdtype(leaf.dtype, jnp.floating) else np.dtype(leaf.dtype)


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


def _widened(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if jnp.issubdtype(array.dtype, jnp.floating) else np.asarray(array)


def _abstract(detector: Detector) -> Features:
    """Shapes of the features of one image."""
    graphdef, arrays = module_state.split(detector)
    shape: Any = jax.ShapeDtypeStruct
    images = {name: shape((1, v.height, v.width, 3), jnp.uint8) for name, v in detector.inputs.views.items()}
    notes = extras_of(detector, [Record(Path(), "")], training=True)
    extras = {name: shape(array.shape, array.dtype) for name, array in notes.items()}
    batch = Batch(images, shape((1,), jnp.uint32), shape((1,), jnp.bool_), extras=extras)
    return jax.eval_shape(lambda arrays, batch: module_state.merge(graphdef, arrays).encode(batch), arrays, batch)


def _is_whole(folder: Path, identity: str, spec: Features, warn: Callable[[Sequence[str]], None]) -> bool:
    """Whether a folder holds a finished cache of that identity, every byte as it was written, and what it must hold."""
    if not (folder / MANIFEST).exists():
        return False
    try:
        manifest = read_manifest(folder)
        if manifest.about.get("identity") != identity:
            return False
        manifest.check()
        for number, leaf in enumerate(jax.tree.leaves(spec)):
            _mapped(folder / f"{number}.npy", leaf)
    except (DamageError, DataError, OSError) as error:
        warn([f"{error}; features are computed anew"])
        return False
    return True


def _clear(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    for old in folder.glob("*.npy"):
        old.unlink()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: cached features need {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free; "
            "use cache = off, a smaller image_size, or another workdir"
        )
