"""What commands share: problems of their flags, all raised at once, and command lines to show."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxad.errors import ConfigError

if TYPE_CHECKING:
    from jaxad.data import DataSet


def fit_problems(command: Any, config: Any) -> list[str]:
    """What is wrong with the flags of `jaxad fit ...`, its settings `config` and `command.train` among them."""
    problems = count_problems(command, "workers")
    if command.workdir.exists() and not command.workdir.is_dir():
        problems.append(f"--workdir {command.workdir}: is a file; give a folder")
    for flag, settings in (("--model", config), ("--train", command.train)):
        try:
            if settings is not None:
                settings.check()
        except ConfigError as error:
            problems.append(f"{flag}: {error}")
    return problems


def count_problems(command: Any, *names: str) -> list[str]:
    """Flags of counts that are below 1."""
    values = ((name.replace("_", "-"), getattr(command, name)) for name in names)
    return [f"--{flag} {value}: needs to be at least 1" for flag, value in values if value < 1]


def raise_problems(problems: Sequence[str]) -> None:
    """Raises ConfigError with all problems, if there are any."""
    if problems:
        several = len(problems) > 1
        raise ConfigError("\n  ".join(["this cannot be run:", *problems]) if several else problems[0])


def skipped(dataset: DataSet) -> list[str]:
    """Files left out under --on-bad skip."""
    return [problem.file for problem in dataset.problems if problem.fatal]


def command_line(*words: object) -> str:
    """A command line of jaxad, quoted for a shell."""
    return shlex.join(["jaxad", *map(str, words)])
