"""Resizing as matrices: one for the rows, one for the columns, made once on the host in float64.

Every kind of resizing here is linear and acts on rows and columns apart, so that a device only multiplies, and any
chain of such steps is one matrix for each axis. Sample i of n covers the interval [i, i + 1] of [0, n] unless corners
are aligned.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.types import Array


def bilinear(size: int, target: int, align_corners: bool = False) -> np.ndarray:
    """Linear interpolation from `size` to `target` samples, not antialiased, by torch's conventions.

    Args:
        size, target: lengths of input and output.
        align_corners: sample i lies at i (size - 1) / (target - 1); otherwise at (i + 1/2) size / target - 1/2.

    Returns:
        float64 [target size]; rows sum to 1.
    """
    index = np.arange(target)
    if align_corners:
        position = index * ((size - 1) / max(target - 1, 1))
    else:
        position = np.clip((index + 0.5) * (size / target) - 0.5, 0, size - 1)
    left = np.minimum(np.floor(position).astype(int), size - 1)
    matrix = np.zeros((target, size))
    np.add.at(matrix, (index, left), 1 - (position - left))
    np.add.at(matrix, (index, np.minimum(left + 1, size - 1)), position - left)
    return matrix


def bicubic(size: int, target: int, scale: float | None = None) -> np.ndarray:
    """Cubic interpolation from `size` to `target` samples as torch does it (a = -0.75, borders clamped).

    Args:
        size, target: lengths of input and output.
        scale: output samples per input sample where it is not exactly target / size.

    Returns:
        float64 [target size]; rows sum to 1.

    Source: Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    centers = (np.arange(target) + 0.5) / (scale or target / size) - 0.5
    matrix = np.zeros((target, size))
    for offset in (-1, 0, 1, 2):
        source = np.floor(centers).astype(int) + offset
        np.add.at(matrix, (np.arange(target), source.clip(0, size - 1)), _keys(centers - source, a=-0.75))
    return matrix


def antialiased_bicubic(size: int, target: int) -> np.ndarray:
    """Cubic interpolation from `size` to `target` samples as PIL does it: a = -0.5, widened when shrinking.

    Returns:
        float64 [target size]; rows sum to 1.
    """
    scale = target / size
    centers = (np.arange(target) + 0.5) / scale - 0.5
    weights = _keys((centers[:, None] - np.arange(size)) * min(scale, 1.0), a=-0.5)
    return weights / weights.sum(axis=1, keepdims=True)


def apply(rows: np.ndarray, columns: np.ndarray, images: Array) -> jax.Array:
    """Resize images by one matrix for each axis.

    Args:
        rows: [H h].
        columns: [W w].
        images: [b h w c].

    Returns:
        float32 [b H W c].
    """
    chex.assert_shape(images, (None, rows.shape[1], columns.shape[1], None), custom_message="images must be [b h w c]")
    a, b = jnp.asarray(rows, jnp.float32), jnp.asarray(columns, jnp.float32)
    wide = jnp.einsum("bhwc,vw->bhvc", jnp.asarray(images, jnp.float32), b, precision="highest")
    return jnp.einsum("uh,bhvc->buvc", a, wide, precision="highest")


def resize_bilinear(images: Array, size: tuple[int, int]) -> jax.Array:
    """Images [b h w c] at another size (height, width), not antialiased: float32 [b height width c]."""
    chex.assert_rank(images, 4, custom_message="images must be [b h w c]")
    return apply(bilinear(images.shape[1], size[0]), bilinear(images.shape[2], size[1]), images)


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
