"""The one place of the command line that prints."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from types import TracebackType

from jaxad.io.text import visible

_REPORTED = ("jaxad", "jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")


def show(text: object, *, error: bool = False, flush: bool = False) -> None:
    """Prints lines on stdout, or on stderr; a name in them cannot control the terminal (`jaxad.io.text`).

    Args:
        text: what to print.
        error: print on stderr; where nobody reads that, nothing more can be said.
        flush: whether a program that reads stdout gets it now, and not at the end.
    """
    if not error:
        print(visible(text, lines=True), flush=flush)
        return
    with contextlib.suppress(OSError):
        print(visible(text, lines=True), file=sys.stderr, flush=True)


def message(error: object, words: Sequence[str]) -> str:
    """What an error says, in its own lines: a new line in a path of the command line, `words`, is no end of a line."""
    text = str(error)
    with contextlib.suppress(OSError):
        words = [*words, os.getcwd()]
    for part in {part for word in words for part in re.split(r"[/\\=:]", word) if "\n" in part}:
        text = text.replace(part, visible(part))
    return text


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In place of `sys.excepthook`: names in the traceback cannot control the terminal either."""
    show("".join(traceback.format_exception(kind, error, trace)).rstrip(), error=True)


def what_to_report() -> str:
    """What stands below the traceback of an error that nobody foresaw."""
    versions = []
    for name in _REPORTED:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{name} missing")
    machine = f"Python {platform.python_version()}, {platform.platform()}"
    return (
        "This is a bug of jaxad. Please report it, with the lines above, your command line, and these versions:\n"
        f"{', '.join(versions)}, {machine}"
    )
