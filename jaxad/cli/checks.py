"""What commands share: problems of their flags, all raised at once, their data, and command lines to show."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxad.config import DataConfig
from jaxad.errors import ConfigError

if TYPE_CHECKING:
    from jaxad.cli.flags import DataCommand
    from jaxad.data import DataSet


def fit_problems(command: Any, config: Any) -> list[str]:
    """What is wrong with the flags of `jaxad fit ...`, its settings `config` and `command.train` among them."""
    problems = count_problems(command, "workers")
    if not 0 <= command.holdout < 1:
        problems.append(f"--holdout {command.holdout}: must be at least 0 and below 1")
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
    return [f"--{flag} {value}: must be at least 1" for flag, value in values if value < 1]


def raise_problems(problems: Sequence[str]) -> None:
    """Raises ConfigError with all problems, if there are any."""
    if problems:
        several = len(problems) > 1
        raise ConfigError("\n  ".join(["this cannot be run:", *problems]) if several else problems[0])


def load_data(command: DataCommand, holdout: float = 0.0, *, verify: bool | None = None) -> DataSet:
    """The data set that a command names, as `jaxad.data.load` gives it.

    Raises:
        DataError: no such data, or problems with it.
    """
    from jaxad import data

    config = DataConfig(command.chosen_categories, holdout, command.on_bad, command.workers)
    return data.load(command.data, command.data_dir, config=config, verify=verify)


def data_flags(command: DataCommand) -> tuple[object, ...]:
    """The flags of a command that say which images it reads, for the command to run next."""
    where = () if command.data_dir is None else ("--data-dir", command.data_dir)
    categories = ("--categories", *command.chosen_categories) if command.chosen_categories else ()
    return ("--data", command.data, *where, *categories, *(("--on-bad", "skip") if command.on_bad == "skip" else ()))


def skipped(dataset: DataSet) -> list[str]:
    """Files left out under --on-bad skip."""
    return [problem.file for problem in dataset.problems if problem.fatal]


def command_line(*words: object) -> str:
    """A command line of jaxad, quoted for a shell."""
    return shlex.join(["jaxad", *map(str, words)])
