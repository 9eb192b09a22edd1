"""Memory bank of normal patches: search for the nearest, reservoir sampling, greedy coreset.

The score is that of PatchCore (arXiv 2106.08265): the distance of a patch to the nearest ones in the bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.cosine import unit
from jaxad.types import Array

Distance = Literal["cosine", "euclidean"]
SPARE = 4
"""Candidates measured besides those asked for, where the search multiplies in bfloat16."""


def bank_entries(patches: Array, distance: Distance) -> Array:
    """Patches [m c] as the bank keeps them: of unit length for the cosine distance, unchanged for the euclidean."""
    chex.assert_rank(patches, 2, custom_message="patches must be [m c]")
    if distance == "euclidean":
        return patches
    return patches / np.maximum(np.linalg.norm(patches, axis=-1, keepdims=True), 1e-12)


def stack_banks(groups: Sequence[Array]) -> np.ndarray:
    """Entries [k_i c] of g banks as one array float32 [g k c], the smaller banks filled up with NaN."""
    width = groups[0].shape[-1]
    for group in groups:
        chex.assert_shape(group, (None, width), custom_message="groups must be [k_i c], all of one width c")
    banks = np.full((len(groups), max(map(len, groups)), width), np.nan, np.float32)
    for bank, entries in zip(banks, groups, strict=True):
        bank[: len(entries)] = entries
    return banks


def nearest_distance(
    tokens: Array,
    banks: Array,
    which: Array,
    *,
    distance: Distance = "cosine",
    neighbors: int = 1,
    chunk: int = 4096,
) -> jax.Array:
    """Mean distance of every token to its nearest entries in the bank of its image.

    One scan over slices of the banks: it needs room for tokens x chunk values, whatever the size of a bank, and with
    several banks for images x chunk x c more, every image's own slice.

    Accelerators multiply in bfloat16 to find candidates, `SPARE` more than are asked for, and measure those in float32:
    a float32 product takes them six times as long or more. What is found is then as near as the nearest to within the
    rounding of bfloat16, and its distance is exact.

    Args:
        tokens: [b n c].
        banks: [g k c] from `bank_entries`; entries that are NaN are padding and never near.
        which: int32 [b], bank of each image, in 0..g-1. With g = 1 all images share one matrix product.
        distance: "cosine" gives 1 - cosine in 0..2, "euclidean" the L2 distance.
        neighbors: nearest entries averaged.
        chunk: entries compared at once.

    Returns:
        float32 [b n]; 0 where the bank of an image is empty.
    """
    chex.assert_rank(tokens, 3, custom_message="tokens must be [b n c]")
    chex.assert_shape(banks, (None, None, tokens.shape[-1]), custom_message="banks must be [g k c] for tokens [b n c]")
    chex.assert_shape(which, tokens.shape[:1], custom_message="which must be [b] for tokens [b n c]")
    chex.assert_type(which, int, custom_message="which must hold integers")
    tokens = unit(tokens) if distance == "cosine" else jnp.asarray(tokens, jnp.float32)
    chunk = min(chunk, banks.shape[1])
    given = (tokens, jnp.asarray(banks), jnp.asarray(which))
    exact, low = (partial(f, distance, neighbors, chunk) for f in (_nearest, _nearest_of_candidates))
    few = banks.shape[1] <= neighbors + SPARE
    best = exact(*given) if few else jax.lax.platform_dependent(*given, cpu=exact, default=low)
    found = 1 + best if distance == "cosine" else jnp.sqrt(jnp.maximum(best, 0.0))
    return jnp.where(jnp.isfinite(best), found, 0.0).sum(-1) / jnp.maximum(jnp.isfinite(best).sum(-1), 1)


def _nearest(
    distance: Distance, neighbors: int, chunk: int, tokens: jax.Array, banks: jax.Array, which: jax.Array
) -> jax.Array:
    """What grows with the distance (`_far`) to the nearest entries, all products in float32: [b n neighbors]."""
    return _search(tokens, banks, which, distance, chunk, jnp.float32, _Lowest(neighbors))


def _nearest_of_candidates(
    distance: Distance, neighbors: int, chunk: int, tokens: jax.Array, banks: jax.Array, which: jax.Array
) -> jax.Array:
    """The same, in float32 only to the candidates that products in bfloat16 find."""
    kept, center = _LowestAndPlaces(neighbors + SPARE), None
    if distance == "euclidean":
        # About the mean of each bank, which changes no distance: few bits then hold the differences.
        center = jnp.nan_to_num(jnp.nanmean(banks, axis=1))
        tokens = tokens - center[which][:, None]
    near, places = _search(tokens, banks, which, distance, chunk, jnp.bfloat16, kept, center)
    far = jnp.where(jnp.isfinite(near), _measured(tokens, banks, which, places, distance, center), jnp.inf)
    return jnp.sort(far, axis=-1)[..., :neighbors]


@dataclass(frozen=True)
class _Lowest:
    """The lowest `number` values of a row."""

    number: int

    def first(self, shape: tuple[int, ...]) -> jax.Array:
        return jnp.full((*shape, self.number), jnp.inf, jnp.float32)

    def merged(self, best: jax.Array, far: jax.Array, start: jax.Array) -> jax.Array:
        if self.number == 1:
            return jnp.minimum(best, far.min(-1, keepdims=True))
        return -jax.lax.top_k(-jnp.concatenate([best, far], axis=-1), self.number)[0]


@dataclass(frozen=True)
class _LowestAndPlaces:
    """The same with their places in the whole row, of which `far` is the part from `start` on."""

    number: int

    def first(self, shape: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
        return _Lowest(self.number).first(shape), jnp.zeros((*shape, self.number), jnp.int32)

    def merged(
        self, best: tuple[jax.Array, jax.Array], far: jax.Array, start: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        near, places = jax.lax.top_k(-far, min(self.number, far.shape[-1]))
        values = jnp.concatenate([best[0], -near], axis=-1)
        order = jax.lax.top_k(-values, self.number)[1]
        both = (values, jnp.concatenate([best[1], places + start], axis=-1))
        return tuple(jnp.take_along_axis(each, order, axis=-1) for each in both)  # type: ignore[return-value]


def _search(
    tokens: jax.Array,
    banks: jax.Array,
    which: jax.Array,
    distance: Distance,
    chunk: int,
    dtype: Any,
    kept: Any,
    center: jax.Array | None = None,
) -> Any:
    """What is `kept` of what grows with the distance of each token to the entries, from products in `dtype`.

    Entries are taken less the `center` [g c] of their bank, slice by slice.
    """
    groups, size, channels = banks.shape
    banks = jnp.pad(banks, ((0, 0), (0, -size % chunk), (0, 0)), constant_values=jnp.nan)
    slices = jnp.moveaxis(banks.reshape(groups, -1, chunk, channels), 1, 0)
    squares = jnp.square(tokens).sum(-1)[:, :, None]
    low = tokens.astype(dtype)
    options: Any = {"precision": "highest" if dtype == jnp.float32 else None, "preferred_element_type": jnp.float32}

    def step(best, numbered):
        number, entries = numbered
        empty = jnp.isnan(entries[..., 0])
        entries = jnp.where(empty[..., None], 0.0, entries if center is None else entries - center[:, None])
        if groups == 1:
            product = jnp.matmul(low, entries[0].astype(dtype).T, **options)
        else:
            entries, empty = entries[which], empty[which]
            product = jnp.einsum("bnc,bkc->bnk", low, entries.astype(dtype), **options)
        far = _far(product, squares, jnp.square(entries).sum(-1)[:, None, :], distance)
        return kept.merged(best, jnp.where(empty[:, None, :], jnp.inf, far), number * chunk), None

    best, _ = jax.lax.scan(step, kept.first(tokens.shape[:2]), (jnp.arange(len(slices)), slices))
    return best


def _measured(
    tokens: jax.Array,
    banks: jax.Array,
    which: jax.Array,
    places: jax.Array,
    distance: Distance,
    center: jax.Array | None,
) -> jax.Array:
    """What grows with the distance of each token to the entries at `places` [b n m], in float32, one of m at a time."""
    squares = jnp.square(tokens).sum(-1)

    def of_candidate(places: jax.Array) -> jax.Array:
        entries = banks[which[:, None], places]
        if center is not None:
            entries = entries - center[which][:, None]
        product = jnp.einsum("bnc,bnc->bn", tokens, entries, precision="highest")
        return _far(product, squares, jnp.square(entries).sum(-1), distance)

    return jnp.moveaxis(jax.lax.map(of_candidate, jnp.moveaxis(places, -1, 0)), 0, -1)


def _far(product: jax.Array, squares: jax.Array, lengths: jax.Array, distance: Distance) -> jax.Array:
    """What grows with the distance: -cosine of unit vectors, or the squared distance. It needs no root, no division."""
    return -product if distance == "cosine" else squares + lengths - 2 * product


class Reservoir:
    """A uniform random sample of a stream of patches, in memory that does not grow with the stream.

    Every patch draws a priority in 0..1, and the `size` lowest stay. A newcomer is written over one that loses its
    place; no other is moved.

    Args:
        size: patches kept.
        seed: of the sample; the same stream gives the same sample, however it is cut into batches.
    """

    def __init__(self, size: int, seed: int):
        self._rng = np.random.default_rng(seed)
        self._priority = np.full(size, np.inf)
        # Of an empty place: behind every patch.
        self._position = np.full(size, np.iinfo(np.int64).max)
        self._seen = 0
        self._patches: np.ndarray | None = None

    def add(self, patches: np.ndarray) -> None:
        """Offers patches [m c]; all calls must offer the same width c."""
        chex.assert_rank(patches, 2, custom_message="patches must be [m c]")
        size = len(self._priority)
        if self._patches is None:
            self._patches = np.empty((size, patches.shape[1]), patches.dtype)
        priority = self._rng.random(len(patches))
        kept = np.argpartition(np.concatenate([self._priority, priority]), size - 1)[:size]
        winners = kept[kept >= size] - size
        losers = np.delete(np.arange(size), kept[kept < size])
        self._patches[losers], self._priority[losers] = patches[winners], priority[winners]
        self._position[losers] = self._seen + winners
        self._seen += len(patches)

    def patches(self) -> np.ndarray:
        """The sample [min(m, size) c], in the order of the stream."""
        if self._patches is None:
            return np.zeros((0, 0), np.float32)
        return self._patches[np.argsort(self._position)[: self._seen]]


def greedy_coreset(patches: Array, size: int, key: Array, *, projection: int = 128) -> np.ndarray:
    """k-center greedy coreset: repeatedly take the patch farthest from those taken (PatchCore, Algorithm 1).

    Distances are measured after a random projection to `projection` dimensions (Johnson-Lindenstrauss), as PatchCore
    does; the loop is one compiled program.

    Args:
        patches: [m c].
        size: patches to take; all where there are no more.
        key: PRNG key of the projection and of the first patch.
        projection: dimensions in which distances are measured.

    Returns:
        Their indices, int [min(m, size)], all different.
    """
    chex.assert_rank(patches, 2, custom_message="patches must be [m c]")
    patches = jnp.asarray(patches, jnp.float32)
    size = min(size, patches.shape[0])
    key_projection, key_first = jax.random.split(key)
    if projection < patches.shape[1]:
        matrix = jax.random.normal(key_projection, (patches.shape[1], projection), jnp.float32) / projection**0.5
        patches = jnp.matmul(patches, matrix, precision="highest")
    first = jax.random.randint(key_first, (), 0, patches.shape[0], jnp.int32)
    return np.asarray(_k_center(patches, first, size))


@partial(jax.jit, static_argnums=2)
def _k_center(points: Array, first: Array, size: int) -> jax.Array:
    squares = jnp.square(points).sum(-1)

    def step(carry, _):
        nearest, newest = carry
        distance = squares + squares[newest] - 2 * jnp.matmul(points, points[newest], precision="highest")
        nearest = jnp.minimum(nearest, distance).at[newest].set(-jnp.inf)
        return (nearest, jnp.argmax(nearest).astype(newest.dtype)), newest

    start = (jnp.full(points.shape[0], jnp.inf, jnp.float32), first)
    return jax.lax.scan(step, start, length=size)[1]
