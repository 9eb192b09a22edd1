"""Files that may come from anywhere: what they may hold at most, and the one place where what parsers raise becomes an
error of jaxad's.

A reader compares sizes, counts, depth and declared shapes with these limits before it allocates what they claim. They
lie an order of magnitude above everything published, and far below what harms a machine.
"""

from __future__ import annotations

import math
import os
import re
import reprlib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from jaxad.errors import JaxadError
from jaxad.io.foreign import raise_of_machine

MEBIBYTE = 2**20
AXES = 32
"""Axes of an array."""
_EMPTY = 2**40
JSON_DEPTH = 64
"""Lists and objects of JSON within each other."""

NAME, PATH, FOLDERS = 255, 2048, 64
"""Bytes of a file's name, letters of its path, and folders within each other."""

MakeError = Callable[[str], JaxadError]
"""Makes the error about a file, which it names, of what is wrong with it."""


@contextmanager
def reading(error: MakeError, *, memory: bool = False) -> Iterator[None]:
    """Turns whatever is raised within into one error that names the file; errors of jaxad pass.

    Args:
        error: makes it.
        memory: whether too little memory is the machine's fault, as where networks are made of files whose claims were
            compared with their sizes before. A parser takes it for a file that claims too much.

    Raises:
        MachineError: machine, device or packages are to blame.
    """
    try:
        yield
    except JaxadError:
        raise
    except Exception as caught:
        raise_of_machine(caught, memory=memory)
        raise error(told(caught)) from caught
    except BaseException as caught:
        # A panic of a library in Rust, which is no Exception; interrupts are none either, and pass.
        if type(caught).__name__ != "PanicException":
            raise
        raise error(told(caught)) from caught


def told(error: BaseException) -> str:
    """What an exception of others says, in one short line.

    What it holds besides text is cut short: printed in full, plain data of a few bytes can fill any memory.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, RecursionError):
        return "nested too deeply"
    said = ", ".join(argument if isinstance(argument, str) else reprlib.repr(argument) for argument in error.args)
    lines = said.splitlines()
    return f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__


def bytes_of(file: Path, most: int, error: MakeError) -> bytes:
    """The content of a regular file.

    Args:
        file: which.
        most: bytes that such a file can have.
        error: makes the error about it.

    Raises:
        JaxadError: as `error` makes it, of a file that cannot be opened, is no regular one, or is too large.
    """
    content = beginning_of(file, most + 1, error)
    if len(content) > most:
        raise error(f"larger than {most / MEBIBYTE:,.0f} MiB, which no such file is")
    return content


def beginning_of(file: Path, count: int, error: MakeError) -> bytes:
    """The first bytes of a regular file, all where there are fewer; errors as of `bytes_of`."""
    with reading(error):
        # Opening a named pipe would wait for ever.
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise error("not a regular file")
        with file.open("rb") as stream:
            # As much memory is taken as is asked for, however small the file.
            return stream.read(min(count, status.st_size + 1))


def nested_names(names: Iterable[str]) -> list[str]:
    """Those of some names of folders, which may have slashes, that lie in the folder of another one."""
    names = set(names)
    return sorted(name for name in names if any(name.startswith(f"{other}/") for other in names))


def path_fault(path: str) -> str:
    """What keeps a path that a file gives from being one below a folder, "" for nothing."""
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    parts = PurePosixPath(path).parts
    if ".." in parts:
        return "a path out of the folder"
    if "\\" in path or "\0" in path:
        return "a path with a backslash or NUL"
    try:
        longest = max((len(os.fsencode(part)) for part in parts), default=0)
    except UnicodeEncodeError:
        return "a path that is no text"
    if longest > NAME or len(path) > PATH or len(parts) > FOLDERS:
        return f"a name of more than {NAME} bytes, or more than {FOLDERS} folders within each other"
    return ""


def shape_fault(shape: Any, itemsize: int, most: int) -> str:
    """What is wrong with the shape that a file declares for an array, "" for nothing.

    Args:
        shape: lengths of the axes, of whatever type the file gave.
        itemsize: bytes of an element.
        most: bytes that the array may take.
    """
    if not isinstance(shape, Sequence) or isinstance(shape, str | bytes):
        return "a shape that is no list"
    if len(shape) > AXES:
        return f"{len(shape)} axes; an array has at most {AXES}"
    if any(type(length) is not int or length < 0 for length in shape):
        return "a shape that is no list of whole numbers from 0"
    # An axis of length 0 hides the others, which must be such as numpy can count all the same.
    limit = _EMPTY if 0 in shape else most
    if math.prod(max(length, 1) for length in shape) * itemsize > limit:
        return f"a shape of {reprlib.repr(list(shape))}, more than the file can hold"
    return ""
