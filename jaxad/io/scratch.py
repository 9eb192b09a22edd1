"""Temporary folders that do not outlive their process for long."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxad.io.locks import LOCK, is_free, locked
from jaxad.io.signals import held

_MADE = "[a-z0-9_]{8}"
"""What `tempfile.mkdtemp` puts behind a prefix."""


@contextmanager
def scratch(folder: Path, prefix: str, finish: Callable[[Path], None] = lambda left: None) -> Iterator[Path]:
    """A temporary folder inside another; first removes those that killed processes left, but none that is in use.

    A folder counts as left only if it has a name that `tempfile.mkdtemp` makes and a lock file of jaxad's in it.

    Args:
        folder: must exist.
        prefix: of the temporary folder's name, by which left ones are known.
        finish: called with each left one before it is removed.
    """
    made = re.compile(re.escape(prefix) + _MADE)
    for left in sorted(path for path in folder.iterdir() if made.fullmatch(path.name) and _is_ours(path)):
        if is_free(left / LOCK):
            with held():
                finish(left)
                _empty(left)
                shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(dir=folder, prefix=prefix))
    try:
        with locked(place / LOCK, str(place)):
            try:
                yield place
            finally:
                with held():
                    _empty(place)
    finally:
        with held():
            shutil.rmtree(place, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a lock file that `jaxad.io.locks` wrote."""
    file = folder / LOCK
    if folder.is_symlink() or file.is_symlink() or not file.is_file():
        return False
    with suppress(OSError, ValueError):
        with file.open("rb") as stream:
            holder = json.loads(stream.read(4096))
        return isinstance(holder, dict) and {"pid", "host", "since"} <= holder.keys()
    return False


def _empty(folder: Path) -> None:
    # The lock file goes last: without it, what is left of a folder would not be known again.
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != LOCK:
                path.unlink()
