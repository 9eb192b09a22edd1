"""Image files as bytes, each read at one opening; the hash of what was read is remembered."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from jaxad.errors import DataError, Problem


class Files:
    """Reads files, and remembers the digest of each for as long as its size and date stay the same.

    Safe to use from many threads; a copy for another process takes along what is known.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[str, bytes]] = {}

    def read(self, file: Path, name: str = "") -> bytes:
        """The content of a file, as `read_file`; remembers its digest."""
        return self._read(file, name)[0]

    def digest(self, file: Path) -> bytes:
        """16 bytes (BLAKE2b) of a file's content; the file is opened only if it is new or has changed."""
        known = self._known.get(file)
        if known is not None and known[0] == _state(file):
            return known[1]
        return self._read(file, "")[1]

    def _read(self, file: Path, name: str) -> tuple[bytes, bytes]:
        # Taken first, so that a change while the file is read is noticed later.
        state = _state(file)
        content = read_file(file, name)
        known = self._known.get(file)
        if known is None or known[0] != state:
            known = self._known[file] = state, content_digest(content)
        return content, known[1]


def read_file(file: Path, name: str = "") -> bytes:
    """The content of a file, which is opened once.

    Args:
        file: which.
        name: what messages call it; the path by default.

    Raises:
        DataError: with one problem of kind "unreadable image".
    """
    name = name or str(file)
    try:
        # Opening a named pipe would wait for ever.
        if not stat.S_ISREG(file.stat().st_mode):
            raise bad_image("unreadable image", name, "not a regular file; remove it or put an image in its place")
        return file.read_bytes()
    except OSError as error:
        raise bad_image("unreadable image", name, f"cannot open the file ({error.strerror or error})") from error


def content_digest(content: bytes) -> bytes:
    """16 bytes (BLAKE2b) that identify encoded bytes."""
    return hashlib.blake2b(content, digest_size=16).digest()


def file_fingerprint(file: Path) -> str:
    """Path, size and date of change of a file, which is not opened."""
    status = os.stat(file)
    return f"{file}\0{status.st_size}\0{status.st_mtime_ns}"


def bad_image(kind: str, name: str, detail: str) -> DataError:
    """The error that one image cannot be used."""
    return DataError("an image cannot be used:", [Problem(kind, name, detail)])


def _state(file: Path) -> str:
    try:
        return file_fingerprint(file)
    except OSError:
        # Reading says what is wrong.
        return ""
