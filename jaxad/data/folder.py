"""Images in files as a random-access source (jaxad.types.Source)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from jaxad.data.source import ImageSource
from jaxad.types import Record


@dataclasses.dataclass(frozen=True)
class FolderSource(ImageSource):
    """Images that lie in files, decoded when asked for.

    Attributes:
        name: name of the data set and part, e.g. "parts/train".
        records: one for each image.
    """

    name: str
    records: tuple[Record, ...]

    def encoded(self, index: int) -> Path:
        """The file of an image."""
        return self.records[index].file

    def encoded_mask(self, index: int) -> Path | None:
        """The file of a defect mask, None where there is none."""
        return self.records[index].mask

    def digest(self, index: int) -> bytes:
        """16 bytes (BLAKE2b) of the file's content."""
        return file_digest(self.records[index].file)

    def fingerprint(self, index: int) -> str:
        """The file's path, size and date of change."""
        return file_fingerprint(self.records[index].file)

    def select(self, indices: Iterable[int], name: str | None = None) -> FolderSource:
        """The images at `indices`, in that order, under another name if one is given."""
        return FolderSource(name or self.name, tuple(self.records[index] for index in indices))


def file_digest(file: Path) -> bytes:
    """16 bytes (BLAKE2b) of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()


def file_fingerprint(file: Path) -> str:
    """Path, size and date of change of a file."""
    status = os.stat(file)
    return f"{file}\0{status.st_size}\0{status.st_mtime_ns}"
