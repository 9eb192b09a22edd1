"""Resizing, cropping, smoothing and pooling of maps as matrices.

All of them are linear and act on rows and columns apart, so that any chain of them is one matrix for each axis:
out = A map B^T. Two matrix products cost little on any device, whatever the chain; the matrices are built once, on the
host, in float64.
"""

from __future__ import annotations

from typing import Literal

import chex
import jax
import jax.numpy as jnp
import numpy as np


def crop(size: int, kept: int) -> np.ndarray:
    """The central `kept` of `size` samples, [kept size]."""
    return np.eye(size)[(size - kept) // 2 :][:kept]


def gaussian(size: int, sigma: float, radius: int, boundary: Literal["reflect", "zero"]) -> np.ndarray:
    """Normalized Gaussian of `radius` samples to each side, [size size].

    Args:
        size: length of input and output.
        sigma, radius: in samples.
        boundary: "reflect" mirrors at the outer edge of the last sample (scipy's default); "zero" pads with zeros.
    """
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    rows = np.broadcast_to(np.arange(size)[:, None], (size, len(offsets)))
    columns = rows + offsets[None, :]
    weights = np.broadcast_to(kernel[None, :], columns.shape)
    if boundary == "reflect":
        folded = columns % (2 * size)
        columns = np.where(folded < size, folded, 2 * size - 1 - folded)
    else:
        weights = weights * ((columns >= 0) & (columns < size))
        columns = np.clip(columns, 0, size - 1)
    matrix = np.zeros((size, size))
    np.add.at(matrix, (rows, columns), weights)
    return matrix


def average_pool(size: int, window: int, repeats: int = 1) -> np.ndarray:
    """Mean of `window` neighbors, stride 1, no padding, `repeats` times, [size - repeats (window - 1), size]."""
    matrix = np.eye(size)
    for _ in range(repeats):
        sums = np.cumsum(np.concatenate([np.zeros((1, size)), matrix]), axis=0)
        matrix = (sums[window:] - sums[:-window]) / window
    return matrix


def separable(rows: np.ndarray, columns: np.ndarray, maps: jax.typing.ArrayLike) -> jax.Array:
    """Apply one matrix to each axis of every map.

    Args:
        rows: [H h].
        columns: [W w].
        maps: [b h w].

    Returns:
        float32 [b H W].
    """
    a, b, maps = (jnp.asarray(array, jnp.float32) for array in (rows, columns, maps))
    chex.assert_rank(maps, 3, custom_message="maps must be [b h w]")
    _, height, width = maps.shape
    chex.assert_shape(a, (None, height), custom_message="rows must be [H h] for maps [b h w]")
    chex.assert_shape(b, (None, width), custom_message="columns must be [W w] for maps [b h w]")
    wide = jnp.einsum("bhw,vw->bhv", maps, b, precision="highest")
    return jnp.einsum("uh,bhv->buv", a, wide, precision="highest")
