"""The grid of patches, and resizing a Vision Transformer's learned position embeddings to it."""

from __future__ import annotations

from typing import Literal, get_args

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.errors import ConfigError
from jaxad.nn import resize
from jaxad.types import Array

Interpolation = Literal["bicubic", "antialias", "dinomaly"]
"""How positions are resized. "bicubic" is torch's, never antialiased: DINOv2 without registers. "antialias" is PIL's:
DINOv2 with registers. "dinomaly" is "bicubic" at scale (new + 0.1) / old: the authors' code of DINO, and Dinomaly."""


def patch_grid(size: tuple[int, int], patch: int) -> tuple[int, int]:
    """Rows and columns (h, w) of the patches of an image of `size` (height, width) in pixels.

    Raises:
        ConfigError: a side that is no multiple of the patch.
    """
    if min(size) < patch or any(side % patch for side in size):
        raise ConfigError(f"image of {size[0]} x {size[1]} pixels: both sides must be multiples of {patch}")
    return size[0] // patch, size[1] // patch


def resize_matrix(old: int, new: int, interpolation: Interpolation) -> np.ndarray:
    """Matrix that resamples `old` positions along one axis to `new` ones.

    Args:
        old, new: number of positions before and after.
        interpolation: see `Interpolation`.

    Returns:
        float32 [new old]; rows sum to 1.

    Raises:
        ConfigError: no such interpolation.
    """
    if interpolation not in get_args(Interpolation):
        raise ConfigError(f"interpolation = {interpolation!r}: must be one of {', '.join(get_args(Interpolation))}")
    if interpolation == "antialias":
        return resize.antialiased_bicubic(old, new).astype(np.float32)
    scale = (new + 0.1) / old if interpolation == "dinomaly" else None
    return resize.bicubic(old, new, scale).astype(np.float32)


def resize_positions(positions: Array, grid: tuple[int, int], interpolation: Interpolation) -> Array:
    """Position embeddings [1 s*s c] of a square grid, for another grid (h, w): float32 [1 h*w c].

    The square grid's own positions come back as they are, also where the interpolation would move them.
    """
    chex.assert_shape(positions, (1, None, None), custom_message="positions must be [1 s*s c]")
    side = round(positions.shape[1] ** 0.5)
    if grid == (side, side):
        return positions
    rows, columns = (resize_matrix(side, new, interpolation) for new in grid)
    # One product for all columns: CPUs would transpose an array of images first, in every prediction.
    square = jnp.asarray(positions, jnp.float32).reshape(side, -1)
    of_rows = jnp.matmul(rows, square, precision="highest").reshape(grid[0], side, -1)
    resized: jax.Array = jnp.einsum("vw,uwc->uvc", columns, of_rows, precision="highest")
    return resized.reshape(1, grid[0] * grid[1], -1)
