"""Images as overlapping tiles of one size, for defects that resizing the whole image would lose."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from jaxad.data.source import gray_mask_of, size_of
from jaxad.errors import ConfigError
from jaxad.io.threads import map_threads
from jaxad.types import Record, Sample, Source

HELD = 256 * 2**20
"""Bytes of decoded images that are held for their further tiles; two images at least."""


@dataclass(frozen=True)
class Tiling:
    """How images are cut into tiles: squares of the original image, evenly spaced from edge to edge.

    An image that is smaller than a tile is continued by its mirror image, so that its pixels keep their scale.

    Attributes:
        side: of a tile, in pixels of the original image.
        overlap: share of a side that neighbors have in common at least.
    """

    side: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        problems = [] if self.side >= 16 else [f"tile = {self.side}: must be at least 16 pixels"]
        if not 0 <= self.overlap <= 0.75:
            problems.append(f"overlap = {self.overlap:g}: must be between 0 and 0.75")
        if problems:
            raise ConfigError("\n  ".join(problems))

    def starts(self, length: int) -> tuple[int, ...]:
        """Where the tiles of an axis of so many pixels begin."""
        rest = length - self.side
        if rest <= 0:
            return (0,)
        steps = -(-rest // max(int(self.side * (1 - self.overlap)), 1))
        return tuple(round(number * rest / steps) for number in range(steps + 1))

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Top and left edge of every tile, row by row."""
        return [(top, left) for top in self.starts(height) for left in self.starts(width)]

    def cut(self, image: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """The tile at a corner: [h w ...] -> [side side ...], a copy."""
        top, left = corner
        tile = image[top : top + self.side, left : left + self.side]
        missing = [(0, self.side - length) for length in tile.shape[:2]]
        if not any(after for _, after in missing):
            return np.ascontiguousarray(tile)
        return np.pad(tile, [*missing, *[(0, 0)] * (tile.ndim - 2)], mode="symmetric")

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; the inverse of `from_json`."""
        return {"side": self.side, "overlap": self.overlap}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tiling:
        """As `to_json` wrote it. Raises ConfigError for one that cannot be."""
        return cls(values["side"], values["overlap"])


@dataclass
class _Held:
    """A decoded image, or one that a thread is about to decode."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    image: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        return 0 if self.image is None else self.image.nbytes


class TiledSource:
    """The tiles of a source's images as a source (jaxad.types.Source); whatever reads images reads tiles instead.

    Read in order, each image is decoded once, and few are held; in another order it is decoded anew for its tiles.

    Args:
        source: the images; each is decoded once to learn its size, unless the source knows it.
        tiling: how they are cut.
        per_image: tiles of each image, drawn by `seed` and the image's own pixels; None for all.
        seed: of the draw.
        workers: threads that decode images of unknown size; None for one per CPU.

    Attributes:
        tiling: how they are cut.
        places: for each tile the number of its image, and its top and left edge.
    """

    def __init__(
        self,
        source: Source,
        tiling: Tiling,
        *,
        per_image: int | None = None,
        seed: int = 0,
        workers: int | None = None,
    ):
        self.source, self.tiling = source, tiling
        self.name, self.categories = source.name, source.categories
        sizes = map_threads(lambda index: size_of(source, index), range(len(source)), workers)
        self.places: list[tuple[int, int, int]] = []
        for index, size in enumerate(sizes):
            corners = tiling.corners(size[0], size[1])
            if per_image is not None and per_image < len(corners):
                own = int.from_bytes(source.digest(index)[:8], "little")
                chosen = np.random.default_rng([seed, own]).choice(len(corners), per_image, replace=False)
                corners = [corners[number] for number in sorted(chosen)]
            self.places += [(index, top, left) for top, left in corners]
        self.records = tuple(self._record(*place) for place in self.places)
        self._forget()

    @property
    def depths(self) -> Mapping[str, int]:
        """At how many bits the 16-bit images of each category are read."""
        return getattr(self.source, "depths", {})

    def at_depths(self, depths: Mapping[str, int]) -> TiledSource:
        """The same tiles, images of 16 bits read at other depths."""
        other = copy.copy(self)
        other.source = self.source.at_depths(depths)  # type: ignore[attr-defined]
        other._forget()
        return other

    def select(self, indices: Iterable[int], name: str | None = None) -> TiledSource:
        """The tiles at `indices`, in that order, under another name if one is given."""
        other = copy.copy(self)
        other.name, other.places = name or self.name, [self.places[index] for index in indices]
        other.records = tuple(self._record(*place) for place in other.places)
        other._forget()
        return other

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Sample:
        """Tile uint8 [side side 3] and record. Raises DataError naming the image if it cannot be decoded."""
        number, *corner = self.places[index]
        return Sample(self.tiling.cut(self._image(number), (corner[0], corner[1])), self.records[index])

    def mask(self, index: int) -> np.ndarray | None:
        """The tile of the defect mask, bool [side side]; None where the image has none."""
        number, *corner = self.places[index]
        mask = self.source.mask(number)
        return None if mask is None else self.tiling.cut(mask, (corner[0], corner[1]))

    def gray_mask(self, index: int) -> np.ndarray | None:
        """The same with the gray values of the mask, uint8 [side side], where the source knows them."""
        number, *corner = self.places[index]
        mask = gray_mask_of(self.source, number)
        return None if mask is None else self.tiling.cut(mask, (corner[0], corner[1]))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of a tile in pixels."""
        return self.tiling.side, self.tiling.side

    def fingerprint(self, index: int) -> str:
        """That of the image, and the place of the tile."""
        number, *corner = self.places[index]
        return f"{self.source.fingerprint(number)}\0{corner}\0{self.tiling.side}"

    def digest(self, index: int) -> bytes:
        """16 bytes of the image's pixels and the place of the tile."""
        number, *corner = self.places[index]
        place = f"{corner}{self.tiling.side}".encode()
        return hashlib.blake2b(self.source.digest(number) + place, digest_size=16).digest()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_lock", "_held")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def _record(self, number: int, top: int, left: int) -> Record:
        record = self.source.records[number]
        return replace(record, identity=f"{record.identity or record.file}@{left},{top}")

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self._held: OrderedDict[int, _Held] = OrderedDict()

    def _image(self, number: int) -> np.ndarray:
        """The decoded image; threads that want the same one wait for the first of them."""
        with self._lock:
            held = self._held.setdefault(number, _Held())
            self._held.move_to_end(number)
            while len(self._held) > 2 and sum(other.bytes for other in self._held.values()) > HELD:
                self._held.popitem(last=False)
        with held.lock:
            if held.image is None:
                held.image = self.source[number].image
            return held.image
