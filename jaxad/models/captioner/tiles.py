"""Images as InternVL sees them: a grid of square tiles in nearly their aspect ratio, and a thumbnail of the whole."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image


@functools.lru_cache(maxsize=1024)
def grid(height: int, width: int, side: int, least: int, most: int) -> tuple[int, int]:
    """Rows and columns of the tiles of an image.

    The grid is that with the nearest aspect ratio. Of several the one with more tiles, as long as the image has more
    than half as many pixels as they.

    Args:
        height, width: of the image in pixels.
        side: of a tile in pixels.
        least, most: number of tiles.
    """
    ratio = width / height
    grids = [(rows, columns) for columns in range(1, most + 1) for rows in range(1, most // columns + 1)]
    best, distance = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        found = abs(ratio - columns / rows)
        fills = height * width > 0.5 * side * side * rows * columns
        if rows * columns >= least and (found < distance or (found == distance and fills)):
            best, distance = (rows, columns), found
    return best


def tiles(image: np.ndarray, side: int, least: int, most: int, thumbnail: bool) -> np.ndarray:
    """The tiles of an image, row by row, after them its thumbnail if it has several.

    Args:
        image: uint8 [h w 3].
        side: of a tile in pixels.
        least, most: number of tiles.
        thumbnail: whether there is one.

    Returns:
        uint8 [t side side 3].
    """
    rows, columns = grid(*image.shape[:2], side, least, most)
    whole = Image.fromarray(image)
    resized = np.asarray(whole.resize((columns * side, rows * side), Image.Resampling.BICUBIC))
    parts = resized.reshape(rows, side, columns, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    if not thumbnail or len(parts) == 1:
        return parts
    small = np.asarray(whole.resize((side, side), Image.Resampling.BICUBIC))
    return np.concatenate([parts, small[None]])


def rounded_up(count: int, most: int) -> int:
    """Number of tiles that a program is compiled for, for `count` of them: one of few up to `most`."""
    return min(most, 1 + 3 * -(-(count - 1) // 3))
