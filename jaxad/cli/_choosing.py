"""One name out of several behind a command, such as the detector of `jaxad fit`, and the help that lists them."""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Sequence
from typing import Any, Protocol

from jaxad.cli._printing import show
from jaxad.cli._terminal import width
from jaxad.errors import ConfigError
from jaxad.registry import unknown


class Choices(Protocol):
    """What may be chosen, as a `jaxad.registry.Registry` has it."""

    kind: str

    def names(self) -> tuple[str, ...]:
        """All names."""
        ...

    def get(self, name: str) -> Any:
        """What has that name."""
        ...


def choose(words: Sequence[str], choices: Choices, *, prog: str, description: str) -> str:
    """The first word, which must be the name of one of the choices.

    Args:
        words: what stands behind `prog`.
        choices: what may be chosen; the help shows the beginning of their docstrings.
        prog: the words before.
        description: opens the help.

    Raises:
        SystemExit: help was asked for (0), or no name or another one was given (2); what to say has been printed.
    """
    names = choices.names()
    if words and words[0] in names:
        return words[0]
    asked = bool(words) and words[0] in ("-h", "--help", "--help-all")
    if words and not asked:
        show(f"{prog}: {unknown(choices.kind, words[0], names)}; see {prog} --help", error=True)
        sys.exit(2)
    show(_listing(choices, prog, description), error=not asked)
    sys.exit(0 if asked else 2)


def first_lines(thing: object) -> str:
    """The first paragraph of a docstring, in one line; "" where there is none."""
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


def _listing(choices: Choices, prog: str, description: str) -> str:
    columns, names = width(), choices.names()
    column = max(map(len, names)) + 4
    entries = [
        textwrap.fill(
            _line(choices, name), columns, initial_indent=f"  {name:{column - 2}}", subsequent_indent=" " * column
        )
        for name in names
    ]
    usage = f"usage: {prog} {{{', '.join(names)}}} ..."
    begin = [textwrap.fill(usage, columns, subsequent_indent=" " * 7), "", textwrap.fill(description, columns), ""]
    end = textwrap.fill(f"`{prog} {choices.kind.upper()} --help` explains one of them.", columns)
    return "\n".join([*begin, *entries, "", end])


def _line(choices: Choices, name: str) -> str:
    """A line about one of the choices; another package's that is broken must not hide the others."""
    try:
        return first_lines(choices.get(name))
    except (ImportError, AttributeError, ConfigError) as error:
        return f"cannot be loaded: {error}"
