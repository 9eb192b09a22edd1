"""Several sources as one: the images of the first, then those of the next."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, groupby
from typing import cast

import numpy as np

from jaxad.data.source import ImageSource, gray_mask_of, size_of
from jaxad.data.tiles import Tiling
from jaxad.errors import DataError
from jaxad.types import Record, Sample, Source


def union(parts: Sequence[ImageSource], name: str) -> JoinedSource:
    """The images of several sources, each once: those of the first, then what the next ones add to them."""
    known: set[str] = set()
    chosen = []
    for part in parts:
        chosen.append(part.select(i for i, record in enumerate(part.records) if record.identity not in known))
        known.update(record.identity for record in part.records)
    return JoinedSource(chosen, name)


class JoinedSource:
    """The images of several sources in their order (jaxad.types.Source).

    Args:
        parts: the sources.
        name: of all together; None joins their names.

    Attributes:
        depths: at how many bits the 16-bit images of each category are read, by the first part that says so.
        tiling: how images were cut, where the parts are tiles.

    Raises:
        DataError: parts of different tiles.
    """

    def __init__(self, parts: Sequence[Source], name: str | None = None):
        self.parts = [part for part in parts if len(part)]
        self.name = " + ".join(part.name for part in parts) if name is None else name
        self.records: tuple[Record, ...] = tuple(record for part in self.parts for record in part.records)
        self.categories = tuple(dict.fromkeys(category for part in self.parts for category in part.categories))
        self.depths: dict[str, int] = {}
        for part in reversed(self.parts):
            self.depths |= dict(getattr(part, "depths", {}))
        tilings = {getattr(part, "tiling", None) for part in self.parts}
        if len(tilings) > 1:
            raise DataError(f"{self.name}: parts of different tiles cannot be joined; cut all of them alike")
        self.tiling: Tiling | None = next(iter(tilings), None)
        self._ends = list(accumulate(map(len, self.parts)))

    def select(self, indices: Iterable[int], name: str | None = None) -> JoinedSource:
        """The images at `indices`, in that order, under another name if one is given; every part must offer it too."""
        parts: list[Source] = []
        for _, run in groupby(map(self._place, indices), key=lambda found: id(found[0])):
            (part, first), *others = run
            parts.append(cast("ImageSource", part).select([first, *(place for _, place in others)]))
        return JoinedSource(parts, name or self.name)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [h w 3] and record."""
        part, place = self._place(index)
        return part[place]

    def mask(self, index: int) -> np.ndarray | None:
        """Defect mask bool [h w], None where there is none."""
        part, place = self._place(index)
        return part.mask(place)

    def gray_mask(self, index: int) -> np.ndarray | None:
        """The same with the gray values of its file, uint8 [h w], where the part knows them."""
        return gray_mask_of(*self._place(index))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels."""
        return size_of(*self._place(index))

    def fingerprint(self, index: int) -> str:
        """That of the part."""
        part, place = self._place(index)
        return part.fingerprint(place)

    def digest(self, index: int) -> bytes:
        """16 bytes of the pixels."""
        part, place = self._place(index)
        return part.digest(place)

    def at_depths(self, depths: Mapping[str, int]) -> JoinedSource:
        """The same images, those of 16 bits read at other depths."""
        parts = [part.at_depths(depths) if hasattr(part, "at_depths") else part for part in self.parts]  # type: ignore[attr-defined]
        return JoinedSource(parts, self.name)

    def _place(self, index: int) -> tuple[Source, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)
