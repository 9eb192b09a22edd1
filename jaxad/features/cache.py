"""Features of every image of a source, computed once and kept in memory or on disk."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxad import parallel
from jaxad.config import to_json
from jaxad.detector import Detector
from jaxad.errors import DataError
from jaxad.features.encoder import Encoder, Progress
from jaxad.features.kept import abstract, stored, widened
from jaxad.features.notes import extras_of
from jaxad.io.digests import MANIFEST, DamageError, read_manifest, write_manifest
from jaxad.io.npy import map_npy
from jaxad.types import Features, Source

FEATURES = "features"
"""Below a workdir: features that are kept on disk, or of those in memory a copy for a run that is resumed."""


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

    @property
    def on_disk(self) -> bool:
        """Whether its arrays are those of files."""
        return any(isinstance(array, np.memmap) for array in jax.tree.leaves(self.arrays))

    def abstract(self, images: int) -> Features:
        """Shapes and types of so many images' features as they are kept."""
        return jax.tree.map(lambda array: jax.ShapeDtypeStruct((images, *array.shape[1:]), array.dtype), self.arrays)

    def __getitem__(self, indices: Sequence[int] | np.ndarray) -> Features:
        """Features of the images with these numbers, numpy [b ...], float32 where they are not integers."""
        return jax.tree.map(widened, self.kept(indices))

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
        leaves = jax.tree.leaves(abstract(detector))
        return images * sum(stored(leaf).itemsize * int(np.prod(leaf.shape[1:])) for leaf in leaves)

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
        spec = abstract(detector)
        if folder is not None and (found := cls._found(folder, identity, spec, warn)) is not None:
            return found
        # All processes take part in encoding; on the disk they share, one writes.
        writes = folder is None or parallel.is_main_process()
        if folder is not None and writes:
            _clear(folder, cls.size(detector, len(source)))

        def allocate(number: int, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
            shape = (len(source), *leaf.shape[1:])
            if folder is None:
                return np.empty(shape, stored(leaf))
            return np.lib.format.open_memmap(folder / f"{number}.npy", "w+", stored(leaf), shape)

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
    def load(
        cls, detector: Detector, source: Source, folder: Path, warn: Callable[[Sequence[str]], None]
    ) -> FeatureCache | None:
        """The finished cache of these images and this network in a folder, every byte as it was written, in memory.

        Args:
            detector: its `encode` and frozen networks.
            source: the images, all held.
            folder: where a cache may be; that of a run is `FEATURES`.
            warn: told of a damaged cache.

        Returns:
            The cache; None where there is none, or not in all processes.
        """
        found = cls._found(folder, cache_identity(detector, source), abstract(detector), warn)
        if found is not None:
            return cls(jax.tree.map(np.array, found.arrays), found.identity)
        if parallel.is_main_process():
            # What is damaged must not pass for a copy.
            with suppress(OSError):
                (folder / MANIFEST).unlink(missing_ok=True)
        return None

    def save(self, folder: Path) -> None:
        """Writes the cache to a folder, for `load` and `build`, until `remove_copy` removes it; on one process alone.

        Raises:
            OSError: the folder cannot be written, or its disk is full; nothing is left of the attempt.
        """
        leaves = jax.tree.leaves(self.arrays)
        files = [f"{number}.npy" for number in range(len(leaves))]
        folder.mkdir(parents=True, exist_ok=True)
        try:
            (folder / MANIFEST).unlink(missing_ok=True)
            for file, array in zip(files, leaves, strict=True):
                np.save(folder / file, array)
            write_manifest(folder, files, identity=self.identity, copy=True)
        except OSError:
            _remove(folder)
            raise

    def is_in(self, folder: Path) -> bool:
        """Whether a folder says that it holds these features."""
        try:
            return read_manifest(folder).about.get("identity") == self.identity
        except (DamageError, OSError):
            return False

    @classmethod
    def _found(
        cls, folder: Path, identity: str, spec: Features, warn: Callable[[Sequence[str]], None]
    ) -> FeatureCache | None:
        return (
            cls._open(folder, identity, spec) if parallel.all_agree(_is_whole(folder, identity, spec, warn)) else None
        )

    @classmethod
    def _open(cls, folder: Path, identity: str, spec: Features) -> FeatureCache:
        leaves, structure = jax.tree.flatten(spec)
        arrays = [_mapped(folder / f"{number}.npy", leaf) for number, leaf in enumerate(leaves)]
        return cls(jax.tree.unflatten(structure, arrays), identity)


def remove_copy(folder: Path) -> None:
    """Removes what `FeatureCache.save` wrote to a folder, and what is unfinished there; a cache on disk stays."""
    try:
        if not read_manifest(folder).about.get("copy"):
            return
    except DamageError:
        pass
    except OSError:
        return
    _remove(folder)


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
    encode = type(detector).encode
    hasher.update(repr((encode.__module__, encode.__qualname__, identity)).encode())
    for name, array in sorted(extras_of(detector, source.records, training=True).items()):
        hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


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


def _mapped(file: Path, leaf: Any) -> np.ndarray:
    """The features in a file; `leaf` is one image's."""
    return map_npy(file, stored(leaf), leaf.shape[1:], lambda said: DataError(f"{file}: {said}; remove it"))


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


def _remove(folder: Path) -> None:
    """Removes a cache, as far as that can be, and its folder if nothing else is in it."""
    with suppress(OSError):
        for file in (folder / MANIFEST, *folder.glob("*.npy")):
            file.unlink(missing_ok=True)
        folder.rmdir()


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
