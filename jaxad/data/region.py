"""The part of an image that is judged: what lies outside, such as a fixture, raises no alarm and enters no metric."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.data.decode import decode_mask
from jaxad.errors import DataError
from jaxad.io.json_files import SETTINGS, parse_json
from jaxad.io.pictures import by_centers
from jaxad.io.places import expanded
from jaxad.io.text import typed
from jaxad.io.untrusted import bytes_of
from jaxad.registry import unknown

NAMES = ("roi.png", "roi.json")
"""What a category's folder calls the file of its region."""
EVERY = ""
"""Key of a region that holds for every category without one of its own."""
_FORM = '{"box": [x0, y0, x1, y1]}, with "size": [width, height] where images differ in size'


@dataclass(frozen=True)
class Region:
    """A part of an image: boxes, or what a mask image marks.

    Attributes:
        boxes: each (x0, y0, x1, y1) in pixels, x1 and y1 exclusive.
        size: (width, height) of the image that boxes were drawn on, from which they are scaled to any other; None where
            they are pixels of every image.
        mask: PNG of the mask, black outside, which is scaled to every image; empty where there are boxes.
    """

    boxes: tuple[tuple[float, float, float, float], ...] = ()
    size: tuple[int, int] | None = None
    mask: bytes = b""

    def inside(self, height: int, width: int) -> np.ndarray:
        """Whether each pixel of an image of that size lies in the region, by its center: bool [height width]."""
        if self.mask:
            return by_centers(_decoded(self.mask), (height, width))
        found = np.zeros((height, width), bool)
        across, down = self.size or (width, height)
        x, y = (np.arange(width) + 0.5) * across / width, (np.arange(height) + 0.5) * down / height
        for x0, y0, x1, y1 in self.boxes:
            found |= ((y >= y0) & (y < y1))[:, None] & ((x >= x0) & (x < x1))[None, :]
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; the inverse of `from_json`."""
        if self.mask:
            return {"mask": base64.b64encode(self.mask).decode()}
        return {"boxes": [list(box) for box in self.boxes], **({} if self.size is None else {"size": list(self.size)})}

    @classmethod
    def from_json(cls, values: Any, place: str = "region") -> Region:
        """A region of JSON values: {"box": [x0, y0, x1, y1]} or {"boxes": [...]}, "size" optional.

        Args:
            values: as parsed.
            place: names them in messages.

        Raises:
            DataError: they are none, or a region without a pixel.
        """
        wrong = DataError(f"{place}: is no region; give {_FORM}, or a mask image")
        if not isinstance(values, Mapping) or not set(values) <= {"box", "boxes", "size", "mask"}:
            raise wrong
        if isinstance(text := values.get("mask"), str):
            try:
                return _of_mask(base64.b64decode(text, validate=True), place)
            except ValueError as error:
                raise wrong from error
        boxes = values.get("boxes", [values["box"]] if "box" in values else [])
        size = values.get("size")
        if not isinstance(boxes, list) or not boxes or not all(_numbers(box, 4) for box in boxes):
            raise wrong
        if size is not None and (not _numbers(size, 2) or min(size) < 1):
            raise wrong
        if empty := [box for box in boxes if not (box[0] < box[2] and box[1] < box[3] and min(box) >= 0)]:
            raise DataError(f"{place}: {empty[0]} is no box; needs 0 <= x0 < x1 and 0 <= y0 < y1, in pixels")
        return cls(tuple((b[0], b[1], b[2], b[3]) for b in boxes), size and (int(size[0]), int(size[1])))


def read_region(file: Path) -> Region:
    """The region in a mask image or a JSON file. Raises DataError, which names the file, where it is none."""
    content = bytes_of(file, SETTINGS.bytes, lambda said: DataError(f"{file}: cannot be read ({said})"))
    if file.suffix.lower() == ".json":
        return Region.from_json(parse_json(content, file, size=SETTINGS), str(file))
    return _of_mask(content, str(file))


def given_regions(text: str) -> dict[str, Region]:
    """The regions that a user gives: a mask image, a JSON file, or JSON itself; one for all, or one by category.

    Args:
        text: a path, or JSON of a region or of {category: region}.

    Returns:
        By category, `EVERY` for the one of all.

    Raises:
        DataError: no such file, or no region.
    """
    if text.lstrip().startswith("{"):
        try:
            values, place = json.loads(text), "roi"
        except (ValueError, RecursionError) as error:
            raise DataError(f"roi = {text[:80]}: is no JSON ({error}); give {_FORM}, or a file") from error
    else:
        file = expanded(text)
        if not file.is_file():
            raise DataError(f"roi = {text}: no such file; give a mask image, a JSON file, or {_FORM}")
        if file.suffix.lower() != ".json":
            return {EVERY: read_region(file)}
        content = bytes_of(file, SETTINGS.bytes, lambda said: DataError(f"{file}: cannot be read ({said})"))
        values, place = parse_json(content, file, size=SETTINGS), str(file)
    if isinstance(values, dict) and values and all(isinstance(value, dict) for value in values.values()):
        return {name: Region.from_json(value, f"{place}, {name}") for name, value in values.items()}
    return {EVERY: Region.from_json(values, place)}


def of_categories(regions: Mapping[str, Region], known: Collection[str]) -> dict[str, Region]:
    """Regions by the names of categories as the data has them.

    Raises:
        DataError: categories that are not known; names all of them, and those there are.
    """
    named = {name and typed(name, known): region for name, region in regions.items()}
    if wrong := [unknown("category", name, known) for name in named if name != EVERY and name not in known]:
        raise DataError("\n  ".join(f"roi: {text}" for text in wrong))
    return named


def _of_mask(content: bytes, place: str) -> Region:
    mask = decode_mask(content, place)
    if not mask.any():
        raise DataError(
            f"{place}: is black everywhere, so that nothing would be judged; paint white what is to be judged"
        )
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(stream, "PNG")
    return Region(mask=stream.getvalue())


@functools.lru_cache(maxsize=64)
def _decoded(mask: bytes) -> np.ndarray:
    return decode_mask(mask, "region")


def _numbers(values: Any, count: int) -> bool:
    numbers = isinstance(values, list) and len(values) == count
    # No image has more pixels on a side, and what is no number is not below anything.
    return numbers and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**31 for v in values)
