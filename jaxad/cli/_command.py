"""What every command is: a frozen dataclass whose fields are its flags, with what it does."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from jaxad.cli._reading import read
from jaxad.errors import ConfigError
from jaxad.io.text import visible


class Command:
    """A command. The first line of its docstring stands in `jaxad --help`, all of it in its own help.

    Attributes:
        words: the words that name it.
        keeps: what an interrupted command has finished, and finds again when it is run once more; "" for nothing.
        compilation_cache: whether programs that it compiles are kept for the next one (`jaxad.io.program_cache`).
    """

    words: ClassVar[str]
    keeps: ClassVar[str] = ""
    compilation_cache: Literal["on", "off"] = "on"

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """The command with the flags given.

        Raises:
            SystemExit: help was asked for (0), or the flags do not fit (2); what to say has been printed.
        """
        return read(cls, words, prog=f"jaxad {cls.words}")

    @property
    def run_folder(self) -> Path | None:
        """Folder of the training run that the command begins or resumes, None where it does neither."""
        return None

    def run(self) -> None:
        """Does the work.

        Raises:
            JaxadError: anything a user can mend; its message names parameters, which `jaxad.cli.run` makes flags.
        """
        raise TypeError(f"{type(self).__name__} does nothing")


def below_one(command: Command, *names: str) -> list[str]:
    """A problem for each of these fields that is below 1; None passes."""
    values = ((name, getattr(command, name)) for name in names)
    return [f"{name} = {value}: must be at least 1" for name, value in values if value is not None and value < 1]


def no_folder(command: Command, name: str) -> list[str]:
    """A problem where the folder to write, the field of that name, is a file."""
    path: Path = getattr(command, name)
    return [f"{name} = {path}: is a file; give a folder"] if path.exists() and not path.is_dir() else []


def raise_problems(problems: Sequence[str]) -> None:
    """Raises ConfigError with all problems, if there are any."""
    if problems:
        several = len(problems) > 1
        raise ConfigError("\n  ".join(["this cannot be run:", *problems]) if several else problems[0])


def command_line(*words: object) -> str:
    """A command line of jaxad, quoted for a shell."""
    return " ".join(["jaxad", *(_quoted(str(word)) for word in words)])


def _quoted(word: str) -> str:
    """A word for a shell; one with characters that cannot be shown in the form that bash and zsh read escapes in."""
    if visible(word) == word:
        return shlex.quote(word)
    return "$'{}'".format(visible(word.replace("\\", "\\\\").replace("'", "\\'")))
