"""Counts how often files are opened and images and masks are decoded, in any thread of this process."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jaxad.data import decode


@dataclass
class Counts:
    """What happened inside of `counted`.

    Attributes:
        opened: how often each file below the folder was opened, by its resolved path.
        decoded: how often each encoded image or mask was decoded, by the name that messages call it.
    """

    opened: Counter[Path] = field(default_factory=Counter)
    decoded: Counter[str] = field(default_factory=Counter)


_current: tuple[Path, Counts] | None = None
_listening = False


@contextmanager
def counted(folder: Path) -> Iterator[Counts]:
    """Counts the files opened below a folder, and everything decoded, for as long as the context lasts."""
    global _current, _listening
    # Python offers no way of taking a hook away again; outside of the context this one does nothing.
    if not _listening:
        sys.addaudithook(_hear)
        _listening = True
    counts = Counts()
    real_decode = decode._decode

    def count_and_decode(encoded, name, *rest, **options):
        counts.decoded[name] += 1
        return real_decode(encoded, name, *rest, **options)

    _current = folder.resolve(), counts
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_decode", count_and_decode)
        try:
            yield counts
        finally:
            _current = None


def _hear(event: str, args: tuple) -> None:
    if event != "open" or _current is None or not isinstance(args[0], str | bytes | os.PathLike):
        return
    folder, counts = _current
    path = Path(os.fsdecode(args[0])).resolve()
    if path.is_relative_to(folder):
        counts.opened[path] += 1
