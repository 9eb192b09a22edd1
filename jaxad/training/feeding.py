"""Batches of features for training steps: gathered on the devices where all fit there, else sent as they are kept.

Every way gives the step the same arrays of the same types in the same layout, so that one program trains and a run may
be resumed on a device with more or less memory, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxad import parallel
from jaxad.features import FeatureCache, LiveFeatures
from jaxad.types import Features

BatchOf = Callable[[Sequence[int] | np.ndarray], Features]
"""The features of images by their numbers, as they are kept, divided over the devices."""
_DEVICES = ("data", "fsdp")


def batches_of(
    features: FeatureCache | LiveFeatures,
    mesh: Mesh,
    share: float,
    spare: Callable[[], int],
    limit: int | None = None,
) -> BatchOf:
    """How to get at batches of features on the devices.

    Args:
        features: of all training images.
        mesh: the devices.
        share: of a device's free memory that features may take.
        spare: bytes of each device that the step leaves them, asked for only where devices have memory of their own.
        limit: bytes that they may take on each device, in place of both.

    Returns:
        What gives the features of a batch as they are kept, on the devices.
    """
    if isinstance(features, LiveFeatures):
        return features.on_devices
    room = limit
    if room is None:
        free = _free()
        room = min(int(share * free), spare()) if free and share else 0
    # Processes that disagreed would wait for each other for ever.
    if parallel.all_agree(features.bytes <= room):
        return Resident(features.arrays, mesh, spread=False)
    if parallel.all_agree(-(-len(features) // mesh.size) * (features.bytes // len(features)) <= room):
        return Resident(features.arrays, mesh, spread=True)
    return lambda indices: parallel.shard_batch(features.kept(indices), mesh)


class Resident:
    """Features of all images on the devices; of a batch the host sends the images' numbers alone.

    Args:
        arrays: features as they are kept.
        mesh: the devices.
        spread: whether each device holds a part of the images, not all of them.
    """

    def __init__(self, arrays: Features, mesh: Mesh, *, spread: bool):
        self.spread = spread
        held = NamedSharding(mesh, PartitionSpec(_DEVICES if spread else None))
        padding = -len(arrays.tokens) % mesh.size if spread else 0
        self._arrays = jax.tree.map(partial(_placed, sharding=held, padding=padding), arrays)
        self._numbers = parallel.replicated(mesh)
        gather = partial(_collected, mesh=mesh) if spread else _taken
        self._gather = jax.jit(gather, out_shardings=parallel.batch_sharding(mesh))

    def __call__(self, indices: Sequence[int] | np.ndarray) -> Features:
        numbers = np.asarray(indices, np.int32)
        placed = jax.make_array_from_callback(numbers.shape, self._numbers, lambda index: numbers[index])
        return self._gather(self._arrays, placed)


def _taken(arrays: Features, numbers: jax.Array) -> Features:
    return jax.tree.map(lambda array: jnp.take(array, numbers, axis=0), arrays)


def _collected(arrays: Features, numbers: jax.Array, *, mesh: Mesh) -> Features:
    """Rows of arrays that are spread over the devices: each gives those that it holds, and gets those of its batch."""

    def own_rows(array: jax.Array, numbers: jax.Array) -> jax.Array:
        places = numbers - jax.lax.axis_index(_DEVICES) * len(array)
        mine = (places >= 0) & (places < len(array))
        rows = jnp.take(array, jnp.clip(places, 0, len(array) - 1), axis=0)
        rows = jnp.where(mine.reshape(-1, *(1,) * (rows.ndim - 1)), rows, jnp.zeros((), rows.dtype))
        # One device has each row and the others zeros, so that the sum is exact.
        return jax.lax.psum_scatter(rows, _DEVICES, scatter_dimension=0, tiled=True)

    rows, everywhere = PartitionSpec(_DEVICES), PartitionSpec()
    collect = jax.shard_map(own_rows, mesh=mesh, in_specs=(rows, everywhere), out_specs=rows)
    return jax.tree.map(lambda array: collect(array, numbers), arrays)


def _placed(array: np.ndarray, sharding: NamedSharding, padding: int) -> jax.Array:
    """An array of the host on the devices; of one on disk each device reads its own part."""
    shape = (len(array) + padding, *array.shape[1:])

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        rows = np.asarray(array[start : min(stop, len(array))])
        missing = stop - start - len(rows)
        return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows

    return jax.make_array_from_callback(shape, sharding, part)


def _free() -> int:
    """Bytes free on the fullest device of this process; 0 where devices share the host's memory, as on CPUs."""
    found: list[dict[str, Any] | None] = [device.memory_stats() for device in jax.local_devices()]
    room = [stats["bytes_limit"] - stats["bytes_in_use"] for stats in found if stats and "bytes_limit" in stats]
    return min(room) if len(room) == len(found) else 0
