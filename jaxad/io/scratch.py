"""Temporary folders that do not outlive their process for long."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxad.io.locks import LOCK, is_free, locked
from jaxad.io.signals import held


@contextmanager
def scratch(folder: Path, prefix: str, finish: Callable[[Path], None] = lambda left: None) -> Iterator[Path]:
    """A temporary folder inside another; first removes those that killed processes left, but none that is in use.

    Args:
        folder: must exist.
        prefix: of the temporary folder's name, by which left ones are known.
        finish: called with each left one before it is removed.
    """
    for left in sorted(path for path in folder.iterdir() if path.name.startswith(prefix) and path.is_dir()):
        if is_free(left / LOCK):
            with held():
                finish(left)
                shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(dir=folder, prefix=prefix))
    try:
        with locked(place / LOCK, str(place)):
            yield place
    finally:
        with held():
            shutil.rmtree(place, ignore_errors=True)
