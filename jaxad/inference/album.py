"""Pictures of many images in memory that does not grow with their number."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from jaxad.inference.heat import fit_mask
from jaxad.inference.maps import fit_map
from jaxad.inference.results import Case, Shown
from jaxad.io.pictures import shrink

Picture = TypeVar("Picture", Case, Shown)


class Album(Generic[Picture]):
    """Pictures that are made smaller where they are many, all alike; in the end no more are taken.

    Those that come first are sure of a place: what is kept depends on their order and sizes alone.

    Args:
        sides: longer sides in pixels that pictures may have at most, from the largest to the smallest.
        limit: bytes of all pictures together.
    """

    def __init__(self, sides: Sequence[int], limit: int):
        self._sides, self._limit = list(sides), limit
        self._pictures: dict[int, Picture] = {}
        self._full = False

    @property
    def pictures(self) -> dict[int, Picture]:
        """The pictures by number of their image, in the order in which they came."""
        return dict(self._pictures)

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures."""
        return sum(map(_nbytes, self._pictures.values()))

    def add(self, index: int, picture: Picture) -> None:
        """Takes a picture of the image of that number, if there is room; nothing larger stays in memory for it."""
        if self._full:
            return
        self._pictures[index] = _smaller(picture, self._sides[0])
        while self.nbytes > self._limit and len(self._sides) > 1:
            del self._sides[0]
            for known, kept in self._pictures.items():
                self._pictures[known] = _smaller(kept, self._sides[0])
        if self.nbytes > self._limit:
            del self._pictures[index]
            self._full = True


def _smaller(picture: Picture, side: int) -> Picture:
    image, map, mask = shrink(picture.image, side), picture.map, picture.mask
    size = image.shape[:2]
    map = fit_map(map, size) if max(map.shape) > side else map
    mask = fit_mask(mask, size) if mask is not None and max(mask.shape) > side else mask
    own: dict[str, Any] = {"image": image, "map": map, "mask": mask}
    # A view of a batch would keep the whole of it.
    own = {name: array if array is None or array.base is None else array.copy() for name, array in own.items()}
    return dataclasses.replace(picture, **own)


def _nbytes(picture: Case | Shown) -> int:
    return sum(array.nbytes for array in (picture.image, picture.map, picture.mask) if isinstance(array, np.ndarray))
