"""Files that are written whole or not at all, and damaged ones that make room for them."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

from jaxad.io.locks import try_lock
from jaxad.io.signals import held


def write_whole(path: str | Path, content: bytes | str | Iterator[bytes]) -> Path:
    """Writes a file, text as UTF-8, and makes its folder; until all of it is there the old file stays, or none.

    What is too large to be held comes in pieces; nothing is written if one of them cannot be got.

    Several processes may write the same file at once: each replaces it as a whole.

    Returns:
        The path.

    Raises:
        OSError: the disk is full or fails.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(), _part(path) as (part, stream):
        whole = content.encode() if isinstance(content, str) else content
        stream.writelines([whole] if isinstance(whole, bytes) else whole)
        stream.flush()
        # Else a power cut may leave the new name with nothing in it.
        os.fsync(stream.fileno())
        os.replace(part, path)
    return path


@contextmanager
def _part(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A new file beside another, and locked, so that nobody takes it for left over; removed where it keeps its name."""
    while True:
        part = path.with_name(f".{uuid.uuid4().hex}.part")
        try:
            with part.open("wb") as stream:
                # Whoever removes what is left over (`jaxad.io.locks.occupied`) may have come before the lock.
                if try_lock(stream.fileno()) and part.exists():
                    yield part, stream
                    return
        finally:
            part.unlink(missing_ok=True)


def set_aside(path: Path, name: str) -> Path:
    """Renames a file or folder to `name` in the same folder, or where that is taken to that name with a number.

    Returns:
        Where it is now.

    Raises:
        OSError: it cannot be renamed.
    """
    stem, suffix = Path(name).stem, Path(name).suffix
    names = chain([name], (f"{stem}-{number}{suffix}" for number in count(2)))
    free = next(other for other in map(path.with_name, names) if not os.path.lexists(other))
    return path.rename(free)
