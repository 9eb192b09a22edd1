"""The maps and scores that CLIPFusion fuses, as functions of features (arXiv 2506.11772, Eq. 1 to 11)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.memory.bank import nearest_distance
from jaxad.nn.cosine import unit
from jaxad.types import Array

Norm = Literal["minmax", "max", "none", "resoftmax"]

SMALL = 1e-6
"""Keeps quotients finite; far below every difference that matters in maps of 0 to 1."""


def abnormality(embeddings: Array, texts: Array, scale: Array) -> jax.Array:
    """Share of the abnormal prompt in the softmax over cosines to the normal and abnormal one (Eq. 1).

    Args:
        embeddings: [b n d], of any length.
        texts: [b 2 d], of unit length: normal, abnormal.
        scale: what cosines are multiplied by, 1 / temperature.

    Returns:
        float32 [b n], 0..1.
    """
    chex.assert_rank(embeddings, 3, custom_message="embeddings must be [b n d]")
    chex.assert_shape(texts, (None, 2, embeddings.shape[-1]), custom_message="texts must be [b 2 d]")
    difference = jnp.asarray(texts)[:, 1] - jnp.asarray(texts)[:, 0]
    return jax.nn.sigmoid(scale * jnp.einsum("bnd,bd->bn", unit(embeddings), difference, precision="highest"))


def window_patches(grid: tuple[int, int], side: int) -> np.ndarray:
    """Patch numbers of every square window of `side` patches, stride 1, int [w side*side], by rows (WinCLIP)."""
    rows, columns = grid
    corners = np.arange(rows - side + 1)[:, None] * columns + np.arange(columns - side + 1)[None, :]
    inside = np.arange(side)[:, None] * columns + np.arange(side)[None, :]
    return corners.reshape(-1, 1) + inside.reshape(1, -1)


def harmonic_patches(scores: Array, grid: tuple[int, int], side: int) -> jax.Array:
    """Harmonic mean, for every patch, of the windows that hold it (WinCLIP, Eq. 4): [b w] -> [b n]."""
    return 1 / mean_patches(1 / jnp.maximum(jnp.asarray(scores), SMALL), grid, side)


def mean_patches(scores: Array, grid: tuple[int, int], side: int) -> jax.Array:
    """Mean, for every patch, of the windows that hold it: [b w] -> [b n]."""
    patches = window_patches(grid, side)
    chex.assert_shape(scores, (None, len(patches)), custom_message="scores must be [b w]")
    holds = np.zeros((len(patches), grid[0] * grid[1]), np.float32)
    np.put_along_axis(holds, patches, 1.0, axis=1)
    return jnp.matmul(jnp.asarray(scores), holds, precision="highest") / holds.sum(axis=0)[None]


def harmonic_mean(maps: Sequence[Array]) -> jax.Array:
    """Elementwise harmonic mean of arrays of one shape."""
    return len(maps) / jnp.stack([1 / jnp.maximum(jnp.asarray(m), SMALL) for m in maps]).sum(0)


def reference_distance(tokens: Array, banks: Array, which: Array, chunk: int) -> jax.Array:
    """Half of 1 - cosine to the nearest reference (Eq. 7): tokens [b n c], banks [g k c], which [b] -> [b n], 0..1."""
    return 0.5 * nearest_distance(tokens, banks, which, chunk=chunk)


def resize(maps: Array, size: tuple[int, int]) -> jax.Array:
    """Maps [b h w] to [b H W], bilinearly with half-pixel centers and without antialiasing, as torch does."""
    rows, columns = (_bilinear(old, new) for old, new in zip(jnp.shape(maps)[1:], size, strict=True))
    wide = jnp.einsum("bhw,vw->bhv", jnp.asarray(maps, jnp.float32), columns, precision="highest")
    return jnp.einsum("uh,bhv->buv", rows, wide, precision="highest")


def state_attention(
    probabilities: Mapping[str, Array],
    places: Array,
    used: Array,
    size: tuple[int, int],
    subtokens: Literal["mean", "max", "last"],
    norm: Norm = "none",
    of: Literal["mean", "states", "sites"] = "mean",
) -> tuple[jax.Array, jax.Array | None]:
    """Cross-attention to a state, averaged over sites.

    Args:
        probabilities: by site, [b h w k], after the softmax over k tokens and averaged over heads.
        places: int [b m], the state's tokens.
        used: bool [b m], False for places that only fill up.
        size: rows and columns to which all sites are resized before they are averaged.
        subtokens: how the state's tokens are joined.
        norm: scale that the map is to have in Eq. 4.
        of: what is scaled: the mean of the maps of all states, that of each, or that of each state and site.

    Returns:
        float32 [b H W]; and the same in the scale of Eq. 4, where that has to come before the mean over states, or
        None. For "resoftmax" it is after a softmax over 100 times the attention to all tokens but the first
        (Attend-and-Excite, arXiv 2301.13826).

    Source: Eq. 6, which does not say how heads, layers and sub-tokens are joined: their means are taken.
    """

    def averaged(pick: Any) -> jax.Array:
        """Mean over sites of the attention to some tokens, [b H W m]."""
        total: Any = 0.0
        for site in probabilities.values():
            total = total + _resize_channels(pick(jnp.asarray(site, jnp.float32)), size)
        return total / len(probabilities)

    def joined(attention: jax.Array, places: Array) -> jax.Array:
        own = jnp.take_along_axis(attention, jnp.asarray(places)[:, None, None, :], axis=-1)
        return _join(own, used, subtokens)

    raw = averaged(lambda site: jnp.take_along_axis(site, jnp.asarray(places)[:, None, None, :], axis=-1))
    plain = _join(raw, used, subtokens)
    if norm == "resoftmax":
        # The first token, which marks the start of the text, draws most of the attention.
        every = averaged(lambda site: site[..., 1:])
        return plain, joined(jax.nn.softmax(100 * every, axis=-1), jnp.asarray(places) - 1)
    if of == "states":
        return plain, normalized(plain, norm)
    if of == "sites":
        own = (joined(jnp.asarray(site, jnp.float32), places) for site in probabilities.values())
        return plain, jnp.stack([normalized(resize(site, size), norm) for site in own]).mean(0)
    return plain, None


def normalized(maps: Array, kind: Norm) -> jax.Array:
    """Attention maps [b h w] in the scale of Eq. 4, each image on its own.

    Raw attention lies far below the other maps, which run from 0 to 1, and would vanish beside them.
    """
    maps = jnp.asarray(maps)
    high = maps.max((1, 2), keepdims=True)
    if kind == "minmax":
        low = maps.min((1, 2), keepdims=True)
        # A map without contrast says nothing: 0 everywhere.
        return (maps - low) / jnp.where(high > low, high - low, 1.0)
    return maps / jnp.where(high > 0, high, 1.0) if kind == "max" else maps


def concentration(maps: Array) -> jax.Array:
    """1 - median / maximum of each map [b h w], in 0..1 (Eq. 10): [b]."""
    maps = jnp.asarray(maps)
    return 1 - jnp.median(maps, axis=(1, 2)) / jnp.maximum(maps.max((1, 2)), 1e-12)


def fuse(terms: Mapping[str, Mapping[str, Array]], weight: float, fusion: Literal["sum", "harmonic"]) -> jax.Array:
    """Terms by model ("clip", "diffusion") and modality into one map or score (Eq. 4 and 9).

    Args:
        terms: arrays of one shape.
        weight: of "clip"; "diffusion" has the rest. A model alone has weight 1.
        fusion: "sum" of a model's terms, or their harmonic mean.
    """
    weights = {"clip": weight, "diffusion": 1 - weight} if len(terms) > 1 else dict.fromkeys(terms, 1.0)
    joined = {
        model: harmonic_mean(list(found.values())) if fusion == "harmonic" else _total(found.values())
        for model, found in terms.items()
    }
    return _total(weights[model] * value for model, value in joined.items())


def _total(arrays: Iterable[Any]) -> jax.Array:
    first, *rest = arrays
    for array in rest:
        first = first + array
    return first


def _join(own: jax.Array, used: Array, subtokens: str) -> jax.Array:
    """Attention [b h w m] to the tokens of a state as one map [b h w]."""
    used = jnp.asarray(used)[:, None, None, :]
    if subtokens == "max":
        return jnp.where(used, own, -jnp.inf).max(-1)
    if subtokens == "last":
        # What fills up places repeats the last one.
        return own[..., -1]
    return jnp.where(used, own, 0.0).sum(-1) / used.sum(-1)


def _resize_channels(maps: jax.Array, size: tuple[int, int]) -> jax.Array:
    """[b h w m] to [b H W m], as `resize`."""
    if maps.shape[1:3] == size:
        return maps
    rows, columns = (_bilinear(old, new) for old, new in zip(maps.shape[1:3], size, strict=True))
    wide = jnp.einsum("bhwm,vw->bhvm", maps, columns, precision="highest")
    return jnp.einsum("uh,bhvm->buvm", rows, wide, precision="highest")


def _bilinear(old: int, new: int) -> np.ndarray:
    """Matrix [new old] of linear interpolation, half-pixel centers, borders repeated."""
    centers = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return np.maximum(1 - np.abs(centers[:, None] - np.arange(old)[None, :]), 0).astype(np.float32)
