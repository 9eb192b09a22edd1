"""Maps of tiles put together to one map of the image, without seams.

The map of the image has the protocol's resolution: `size` samples for each side of a tile. It is a weighted mean of the
tiles' maps, interpolated at the same places of the image. Weights fall to nothing toward the edges of a tile that are
not edges of the image, and sum to one everywhere: a constant stays a constant, and what two tiles agree on is kept.
Rows and columns act apart, as tiles lie on a grid.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from jaxad.data.tiles import Tiling
from jaxad.metrics import Protocol, large

LEAST = 1e-6
"""Weight at the very edge of a tile, which counts only where no other tile is."""


class Span(NamedTuple):
    """What a tile gives one axis of the image's map.

    Attributes:
        first: the first sample of the image's map that it reaches.
        matrix: from samples of the tile's map to those, weights included: float32 [reached samples].
    """

    first: int
    matrix: np.ndarray


def map_length(tiling: Tiling, length: int, size: int) -> int:
    """Samples of the image's map on an axis of `length` pixels, where a tile has `size`."""
    return max(1, round(length * size / tiling.side))


@lru_cache(maxsize=256)
def spans(tiling: Tiling, length: int, size: int, samples: int) -> dict[int, Span]:
    """What each tile of an axis gives, by where it starts.

    Args:
        tiling: how the image is cut.
        length: pixels of the axis.
        size: samples of the image's map for each side of a tile.
        samples: of a tile's own map.
    """
    count, side, starts = map_length(tiling, length, size), tiling.side, tiling.starts(length)
    # Where each sample's center lies, in pixels of the image.
    centers = (np.arange(count) + 0.5) * length / count
    inside = {start: (centers >= start) & (centers <= start + side) for start in starts}
    # The outer half of a tile's outermost sample is no longer between two of them.
    margin = 0.5 * side / samples
    weights = np.zeros((len(starts), count))
    for number, start in enumerate(starts):
        before = centers - start if start > 0 else np.full(count, np.inf)
        after = start + side - centers if start + side < length else np.full(count, np.inf)
        depth = np.clip((np.minimum(before, after) - margin) / (side / 2 - margin), 0, 1)
        weights[number] = np.where(inside[start], LEAST + np.sin(np.pi / 2 * depth) ** 2, 0)
    weights /= weights.sum(axis=0)
    return {
        start: _span(centers, inside[start], (start, side), samples, weights[number])
        for number, start in enumerate(starts)
    }


def _span(centers: np.ndarray, inside: np.ndarray, tile: tuple[int, int], samples: int, weights: np.ndarray) -> Span:
    reached = np.flatnonzero(inside)
    start, side = tile
    position = np.clip((centers[reached] - start) * samples / side - 0.5, 0, samples - 1)
    left = np.minimum(np.floor(position).astype(int), max(samples - 2, 0))
    matrix, rows = np.zeros((len(reached), samples)), np.arange(len(reached))
    np.add.at(matrix, (rows, left), 1 - (position - left))
    np.add.at(matrix, (rows, np.minimum(left + 1, samples - 1)), position - left)
    return Span(int(reached[0]), (weights[reached, None] * matrix).astype(np.float32))


class WholeMap:
    """The map of an image that is judged as a whole, at the protocol's size; filled as `Stitched` is."""

    def __init__(self, protocol: Protocol):
        self._protocol = protocol
        self.map = np.zeros((protocol.size, protocol.size), np.float32)
        self.score: float | None = None

    def add(self, corner: tuple[int, int], map: np.ndarray, score: float | None = None) -> None:
        """Takes the only map."""
        self.map, self.score = large.resized(self._protocol, map), score

    def like(self, mask: np.ndarray) -> np.ndarray:
        """A mask bool [h w] of the image at the size of the map."""
        return self._protocol.resize_mask(mask)


class Stitched:
    """The map of one image, to which its tiles are added one by one.

    Args:
        tiling: how the image is cut.
        shape: height and width of the image in pixels.
        size: samples for each side of a tile.

    Attributes:
        map: float32 [h w]; whole once every tile was added.
        score: the highest of the tiles' own scores, None where the detector gives none.
    """

    def __init__(self, tiling: Tiling, shape: tuple[int, int], size: int):
        self._tiling, self._shape, self._size = tiling, shape, size
        self.map = np.zeros([map_length(tiling, length, size) for length in shape], np.float32)
        self.score: float | None = None

    def add(self, corner: tuple[int, int], map: np.ndarray, score: float | None = None) -> None:
        """Adds a tile.

        Args:
            corner: its top and left edge in the image.
            map: its anomaly map, float [h w], of any size.
            score: the detector's score of it.
        """
        rows, columns = (
            spans(self._tiling, length, self._size, samples)[start]
            for length, samples, start in zip(self._shape, map.shape, corner, strict=True)
        )
        part = rows.matrix @ map.astype(np.float32) @ columns.matrix.T
        height, width = part.shape
        self.map[rows.first : rows.first + height, columns.first : columns.first + width] += part
        if score is not None:
            self.score = score if self.score is None else max(self.score, score)

    def like(self, mask: np.ndarray) -> np.ndarray:
        """A mask bool [h w] of the image at the size of the map."""
        return large.mask_like(mask, (self.map.shape[0], self.map.shape[1]))
