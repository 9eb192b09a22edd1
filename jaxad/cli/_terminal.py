"""The terminal as the commands need it: streams that are there and take every character, and a width to lay out for."""

from __future__ import annotations

import io
import os
import shutil
import sys

from jaxad.io.text import ERRORS

NARROWEST, WIDEST = 40, 400
"""Columns that are laid out for; in a terminal of fewer lines are broken by it, in one of more they are shorter."""


def open_streams() -> None:
    """Makes stdin, stdout and stderr take and give whatever comes.

    A closed one leads nowhere from then on, or else the next file to be opened would have its number, and get what
    others print. Characters that the encoding does not have are printed as escapes.
    """
    for number, mode in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest number that is free, this one.
            os.open(os.devnull, mode)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  for the life of the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def width() -> int:
    """Columns to lay out for."""
    return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)


def bound_width() -> None:
    """Has tyro and rich lay out for `width`: in a terminal of few columns tyro never ends, in a vast one it is slow."""
    if shutil.get_terminal_size().columns != width() or not os.environ.get("COLUMNS", "0").isdecimal():
        os.environ["COLUMNS"] = str(width())
