"""Images in files as a random-access source (jaxad.types.Source)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxad.data.files import Files, file_fingerprint, read_file
from jaxad.data.source import ImageSource
from jaxad.types import Record


@dataclass(frozen=True)
class FolderSource(ImageSource):
    """Images that lie in files, decoded when asked for.

    Attributes:
        name: name of the data set and part, e.g. "parts/train".
        records: one for each image.
        files: reads them, and remembers what their contents hash to; shared with the sources selected from this one.
    """

    name: str
    records: tuple[Record, ...]
    files: Files = field(default_factory=Files, kw_only=True, compare=False, repr=False)

    def encoded(self, index: int) -> bytes:
        """The content of an image's file."""
        return self.files.read(self.records[index].file)

    def encoded_mask(self, index: int) -> bytes | None:
        """The content of a defect mask's file, None where there is none."""
        mask: Path | None = self.records[index].mask
        return None if mask is None else read_file(mask)

    def digest(self, index: int) -> bytes:
        """16 bytes (BLAKE2b) of the file's content; a file that was read before is not opened again."""
        return self.files.digest(self.records[index].file)

    def fingerprint(self, index: int) -> str:
        """The file's path, size and date of change."""
        return file_fingerprint(self.records[index].file)

    def select(self, indices: Iterable[int], name: str | None = None) -> FolderSource:
        """The images at `indices`, in that order, under another name if one is given."""
        return replace(self, name=name or self.name, records=tuple(self.records[index] for index in indices))
