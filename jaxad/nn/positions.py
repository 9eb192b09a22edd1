"""The grid of patches, and resizing a Vision Transformer's learned position embeddings to it (SPEC 0.2 and 6.1).

Every variant of resizing is separable, so that each is a matrix per axis, made once in numpy; the network only
multiplies by it.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np

from jaxad.errors import ConfigError
from jaxad.types import Array

Interpolation = Literal["bicubic", "antialias", "dinomaly"]


def patch_grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns (h, w) of the patches of an image of `size` (height, width) in pixels.

    Raises:
        ConfigError: a side that is no multiple of the patch.
    """
    if min(size) < patch or any(side % patch for side in size):
        raise ConfigError(f"image of {size[0]} x {size[1]} pixels: both sides must be multiples of {patch}")
    return size[0] // patch, size[1] // patch


def resize_matrix(old: int, new: int, interpolation: Interpolation) -> np.ndarray:
    """Matrix that resamples `old` equally spaced values to `new` ones, half-pixel centers.

    Args:
        old, new: number of positions before and after.
        interpolation: "bicubic" is torch's (a = -0.75, clamped borders, never antialiased): DINOv2 without registers;
            "antialias" is PIL's and `jax.image.resize`'s cubic (a = -0.5, widened when shrinking): DINOv2 with
            registers; "dinomaly" is "bicubic" at scale (new + 0.1) / old: original DINO and Dinomaly.

    Returns:
        float32 [new old], rows sum to 1.

    Source: SPEC 6.1.
    """
    if interpolation not in get_args(Interpolation):
        raise ValueError(f"interpolation {interpolation!r}: must be one of {get_args(Interpolation)}")
    scale = (new + 0.1 if interpolation == "dinomaly" else new) / old
    centers = (np.arange(new) + 0.5) / scale - 0.5
    if interpolation == "antialias":
        widening = max(1 / scale, 1.0)
        weights = _cubic((centers[:, None] - np.arange(old)) / widening, a=-0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        source = np.floor(centers).astype(int) + offset
        np.add.at(matrix, (np.arange(new), source.clip(0, old - 1)), _cubic(centers - source, a=-0.75))
    return matrix.astype(np.float32)


def resize_positions(positions: Array, grid: tuple[int, int], interpolation: Interpolation) -> Array:
    """Position embeddings [1 s*s c] of a square grid for another grid (h, w), float32 [1 h*w c]."""
    side = round(positions.shape[1] ** 0.5)
    if grid == (side, side):
        return positions
    rows, columns = (resize_matrix(side, new, interpolation) for new in grid)
    square = jnp.reshape(positions, (side, side, -1)).astype(jnp.float32)
    resized = jnp.einsum("hy,wx,yxc->hwc", rows, columns, square, precision="highest")
    return resized.reshape(1, grid[0] * grid[1], -1)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel."""
    x = np.abs(x)
    inner = (a + 2) * x**3 - (a + 3) * x**2 + 1
    outer = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, inner, np.where(x < 2, outer, 0.0))
