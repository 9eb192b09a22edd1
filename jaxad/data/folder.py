"""Images in files as a random-access source (jaxad.types.Source)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxad.data.decode import Decoded
from jaxad.data.depth import depth_of
from jaxad.data.files import Facts, Files, content_digest, file_fingerprint, file_state, read_file
from jaxad.data.layout import photos
from jaxad.data.source import ImageSource
from jaxad.errors import DataError
from jaxad.io.places import expanded
from jaxad.io.text import name_text
from jaxad.types import Record


@dataclass(frozen=True, repr=False)
class FolderSource(ImageSource):
    """Images that lie in files, decoded when asked for.

    Attributes:
        name: name of the data set and part, e.g. "parts/train".
        records: one for each image.
        depths: at how many bits the 16-bit images of each category are read.
        files: remembers what was found in the files; shared with the sources made from this one.
    """

    name: str
    records: tuple[Record, ...]
    depths: Mapping[str, int] = field(default_factory=dict, kw_only=True)
    files: Files = field(default_factory=Files, kw_only=True, compare=False, repr=False)

    def encoded(self, index: int) -> bytes:
        """The content of an image's file."""
        return read_file(self.records[index].file)

    def encoded_mask(self, index: int) -> bytes | None:
        """The content of a defect mask's file, None where there is none."""
        mask: Path | None = self.records[index].mask
        return None if mask is None else read_file(mask)

    def examined(self, index: int) -> Decoded:
        """The decoded image, its frames counted; its facts are remembered."""
        return self._remembered(index, count_frames=True)

    def facts(self, index: int) -> Facts:
        """The digest of an image and the bits that it uses; a file that was examined before is not opened."""
        file = self.records[index].file
        if (known := self.files.known(file)) is not None:
            return known
        try:
            decoded = self._remembered(index)
        except DataError:
            return Facts(content_digest(read_file(file)))
        return self._facts(decoded)

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of an image in pixels; a file that was examined before is not opened."""
        size = self.facts(index).size
        return size if any(size) else super().size(index)

    def fingerprint(self, index: int) -> str:
        """The file's path, size and date of change, and the depth at which it is read."""
        record = self.records[index]
        depth = depth_of(record.category, self.depths)
        return file_fingerprint(record.file) + (f"\0{depth}" if depth else "")

    def at_depths(self, depths: Mapping[str, int]) -> FolderSource:
        """The same images, those of 16 bits read at other depths."""
        return replace(self, depths=dict(depths))

    def select(self, indices: Iterable[int], name: str | None = None) -> FolderSource:
        """The images at `indices`, in that order, under another name if one is given."""
        return replace(self, name=name or self.name, records=tuple(self.records[index] for index in indices))

    def _remembered(self, index: int, *, count_frames: bool = False) -> Decoded:
        file = self.records[index].file
        state = file_state(file)
        decoded = self.decoded(index, count_frames=count_frames)
        self.files.remember(file, state, self._facts(decoded))
        return decoded

    @staticmethod
    def _facts(decoded: Decoded) -> Facts:
        height, width = decoded.pixels.shape[:2]
        return Facts(decoded.digest, decoded.bits, (height, width))


def loose_images(folder: Path | str, category: str) -> FolderSource:
    """All images in a folder and its subfolders, as normal ones of a category.

    Raises:
        DataError: there are none.
    """
    root = expanded(str(folder))
    files = photos(root).files if root.is_dir() else []
    if not files:
        raise DataError(f"{folder}: no images in this folder")
    records = (Record(f, category, 0, "good", identity=name_text(f.relative_to(root).as_posix())) for f in files)
    return FolderSource(str(folder), tuple(records))
