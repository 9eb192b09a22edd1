"""Image files as bytes, each read at one opening; what was found in them is remembered."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import NamedTuple

from jaxad.data.turns import LARGE_FILE, take_turn
from jaxad.errors import DataError, Problem
from jaxad.io.foreign import raise_of_machine
from jaxad.io.untrusted import MEBIBYTE

LARGEST = 1024 * MEBIBYTE
"""Bytes of the file of an image or mask."""


class Facts(NamedTuple):
    """What is known of an image that was decoded.

    Attributes:
        digest: 16 bytes (BLAKE2b) of its pixels, before any depth rounds them; of the encoded bytes where it cannot be
            decoded.
        bits: the smallest depth that holds the values of a 16-bit image (`jaxad.data.depth`), 0 of others.
        size: height and width in pixels, (0, 0) where they were not asked for.
    """

    digest: bytes
    bits: int = 0
    size: tuple[int, int] = (0, 0)


class Files:
    """Remembers the facts of each file for as long as its size and date stay the same.

    Safe to use from many threads; a copy for another process takes along what is known.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[str, Facts]] = {}

    def known(self, file: Path) -> Facts | None:
        """The facts of a file, None if it is new or has changed. The file is not opened."""
        state, facts = self._known.get(file, ("", None))
        return facts if facts is not None and state == file_state(file) else None

    def remember(self, file: Path, state: str, facts: Facts) -> None:
        """Keeps the facts of a file.

        Args:
            file: which.
            state: its `file_state`, taken before it was read, so that a change in between is noticed.
            facts: what was found.
        """
        self._known[file] = state, facts


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
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise bad_image("unreadable image", name, "not a regular file; remove it or put an image in its place")
        if status.st_size > LARGEST:
            detail = f"larger than {LARGEST / MEBIBYTE:,.0f} MiB, which no image is; crop or shrink it"
            raise bad_image("unreadable image", name, detail)
        if status.st_size > LARGE_FILE:
            take_turn()
        with file.open("rb") as stream:
            # No more than was found, should it be written to all the while.
            return stream.read(max(status.st_size, MEBIBYTE) + 1)
    except OSError as error:
        raise_of_machine(error)
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


def file_state(file: Path) -> str:
    """As `file_fingerprint`, "" of a file that is not there."""
    try:
        return file_fingerprint(file)
    except OSError:
        # Reading says what is wrong.
        return ""
