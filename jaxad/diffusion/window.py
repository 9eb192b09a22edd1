"""Parts of token grids, for training that does not see every token at every step."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxad.types import Array


def window_shape(tokens: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the window of a grid (h, w) that is nearly square and has at most so many tokens."""
    rows = min(math.isqrt(tokens), grid[0])
    return rows, min(tokens // rows, grid[1])


def random_windows(key: Array, images: int, grid: tuple[int, int], shape: tuple[int, int]) -> jax.Array:
    """The tokens of one window in each image, by their numbers in the grid: int32 [b n].

    A window that crosses a border goes on at the opposite one: were it held inside, tokens near the borders would be
    seen less often than others, in the corners hardly ever.

    Args:
        key: one PRNG key.
        images: their number b.
        grid: rows and columns of the whole grid; tokens are numbered row by row.
        shape: rows and columns of the window; n is their product.
    """
    first = jax.random.randint(key, (2, images), 0, jnp.asarray(grid)[:, None])
    rows, columns = (
        (start[:, None] + jnp.arange(size)[None]) % whole for start, size, whole in zip(first, shape, grid, strict=True)
    )
    return (rows[:, :, None] * grid[1] + columns[:, None, :]).reshape(images, -1)
