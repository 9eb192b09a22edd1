"""Loose images (paths, folders, PIL images, uint8 arrays) as a source, for `predict`."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxad.data.decode import decode, to_rgb
from jaxad.data.depth import depth_of
from jaxad.data.files import Facts, Files, content_digest, file_fingerprint, file_state, read_file
from jaxad.data.layout import photos
from jaxad.data.pixels import pixel_digest
from jaxad.errors import DataError
from jaxad.io.text import name_text
from jaxad.types import Record, Sample


class ImageList:
    """Images without labels or masks, in the order given (jaxad.types.Source).

    Args:
        images: one or many paths of files or folders (their image files, sorted, as `jaxad.data.layout.photos`
            finds them), PIL images, or arrays as in
            `to_rgb`.
        category: the category all of them show, "" where unknown.
        known: categories that the images may show. Without `category`, those in a subfolder of one of these names show
            it, and where there is only one, all do.
        root: a folder; files that are given one by one and lie below it have their subfolder in it.
        depths: at how many bits the 16-bit images of each category are read (`jaxad.data.depth`).

    Attributes:
        notes: what was left out of folders, for users.

    Raises:
        DataError: a folder without images, or no image at all.
    """

    name = "images"

    def __init__(
        self,
        images: Any,
        category: str = "",
        depths: Mapping[str, int] | None = None,
        *,
        known: Collection[str] = (),
        root: Path | None = None,
    ):
        category = category or (next(iter(known)) if len(known) == 1 else "")
        self.depths = dict(depths or {})
        # A PIL image and an array are iterable or array-like too.
        many = (
            isinstance(images, Iterable) and not isinstance(images, str) and not hasattr(images, "__array_interface__")
        )
        self._files = Files()
        self._images: list[Any] = []
        self.records: list[Record] = []
        self.notes: list[str] = []
        for number, item in enumerate(images if many else [images]):
            if isinstance(item, str | Path) and Path(item).is_dir():
                found = photos(Path(item))
                if note := found.left_out():
                    self.notes.append(f"{item}: left out: {note}")
                if not found.files:
                    raise DataError(f"{item}: no image in this folder")
                for file in found.files:
                    below = file.relative_to(item)
                    self._add(file, file, below.as_posix(), category or _category(below, known))
            elif isinstance(item, str | Path):
                file = Path(item)
                below = file.relative_to(root) if root is not None and file.is_relative_to(root) else file.name
                self._add(file, file, file.as_posix(), category or _category(Path(below), known))
            else:
                name = Path(str(getattr(item, "filename", "")) or f"image-{number}")
                self._add(item, name, name.as_posix(), category)
        if not self.records:
            raise DataError("no image given; give paths of images or folders, PIL images or uint8 arrays")
        self.categories = tuple(dict.fromkeys(record.category for record in self.records))

    def _add(self, image: Any, file: Path, identity: str, category: str) -> None:
        self._images.append(image)
        self.records.append(Record(file, category, identity=name_text(identity)))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        """Image uint8 [h w 3] and record. Raises DataError naming the image if it cannot be used."""
        record, image = self.records[index], self._images[index]
        depth = depth_of(record.category, self.depths)
        if isinstance(image, Path):
            return Sample(decode(read_file(image), str(image), depth).pixels, record)
        return Sample(to_rgb(image, str(record.file), depth), record)

    def at_depths(self, depths: Mapping[str, int]) -> ImageList:
        """The same images, those of 16 bits read at other depths."""
        other = copy.copy(self)
        other.depths = dict(depths)
        return other

    def describe(self, captions: Sequence[str]) -> None:
        """Gives each image its caption, "" for none. Raises ValueError where their numbers differ."""
        self.records = [replace(record, caption=text) for record, text in zip(self.records, captions, strict=True)]

    def mask(self, index: int) -> None:
        """Loose images have no masks."""
        return None

    def fingerprint(self, index: int) -> str:
        """Path, size and date of change of a file; the pixels of an image that was given decoded; the depth of both."""
        image = self._images[index]
        depth = depth_of(self.records[index].category, self.depths)
        known = file_fingerprint(image) if isinstance(image, Path) else pixel_digest(self[index].image).hex()
        return known + (f"\0{depth}" if depth else "")

    def digest(self, index: int) -> bytes:
        """16 bytes (BLAKE2b) of the pixels; of the content of a file that cannot be decoded. A file is read once."""
        image = self._images[index]
        if not isinstance(image, Path):
            return pixel_digest(self[index].image)
        if (known := self._files.known(image)) is not None:
            return known.digest
        state, encoded = file_state(image), read_file(image)
        try:
            decoded = decode(encoded, str(image))
            facts = Facts(decoded.digest, decoded.bits)
        except DataError:
            facts = Facts(content_digest(encoded))
        self._files.remember(image, state, facts)
        return facts.digest


def _category(file: Path, known: Collection[str]) -> str:
    """The outermost of the folders in a path that has the name of a category; "" where none has."""
    return next((part for part in map(name_text, file.parts[:-1]) if part in known), "")
