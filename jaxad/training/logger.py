"""Loggers: what gets the rows of a training besides metrics.csv, found by name.

    @jaxad.register_logger
    class Printed:
        name = "printed"
        packages, extra = (), ""

        def __init__(self, run): ...
        def write(self, step, values): print(step, values)
        def close(self, error): ...

    jaxad.fit(..., config=jaxad.TrainConfig(loggers=("printed",)))

jaxad's own are the files of `jaxad/training/loggers`; other packages name theirs in the entry-point group
`jaxad.loggers`. Several may be asked for at once. A library is imported when its logger is asked for, and a logger that
fails never ends a run.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from jaxad.errors import ConfigError
from jaxad.io.untrusted import told
from jaxad.registry import Registry, registrar

LOGGED = ("system", "protocol", "false_alarm", "config", "train")
"""Settings that loggers get: what else a run records is of its images and of where they lie."""


@dataclass(frozen=True)
class LoggedRun:
    """The run whose rows a logger gets.

    Attributes:
        workdir: its folder; a logger keeps its files in one of its own there, unless it writes elsewhere.
        settings: those of config.json that are `LOGGED`, JSON values.
        resumed: steps done before; rows of later steps, which a run that was killed had written, come once more.
    """

    workdir: Path
    settings: Mapping[str, Any]
    resumed: int

    @classmethod
    def of(cls, workdir: Path, settings: Mapping[str, Any], resumed: int) -> LoggedRun:
        """As the attributes say; `settings` are all that config.json has."""
        return cls(workdir, {name: settings[name] for name in LOGGED if name in settings}, resumed)


class Logger(Protocol):
    """Gets the rows of a run, on the main process alone.

    Attributes:
        name: by which it is asked for.
        packages: what it imports, by the names of the modules.
        extra: of jaxad, which installs these; "" of a logger of another package.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    extra: ClassVar[str]

    def __init__(self, run: LoggedRun) -> None: ...

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row: after so many steps, finite numbers by name; those of an evaluation begin with "evaluation/"."""
        ...

    def close(self, error: BaseException | None) -> None:
        """No more rows come.

        Args:
            error: what ended the training, a KeyboardInterrupt where somebody stopped it; None where it is done.
        """
        ...


loggers: Registry[type[Logger]] = Registry("logger", group="jaxad.loggers", package="jaxad.training.loggers")
"""All logger classes by name: jaxad's own, those registered in this process, and those of installed packages."""

register_logger = registrar(loggers)
"""Class decorator that makes a logger known under its `name`."""


def check_loggers(names: Sequence[str]) -> None:
    """Raises ConfigError, in one line, for loggers that are unknown, or whose packages are not installed."""
    problems = []
    for logger in map(loggers.get, names):
        if missing := " ".join(name for name in logger.packages if not _is_there(name)):
            install = f"pip install 'jaxad[{logger.extra}]'" if logger.extra else f"pip install {missing}"
            problems.append(f"{logger.name} needs {missing} ({install})")
    if problems:
        raise ConfigError(f"loggers = {' '.join(names)}: {', '.join(problems)}")


def _is_there(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


class Loggers:
    """Several loggers, of which those that fail are left out from then on.

    Args:
        names: of the loggers.
        run: what they log.
        warn: told, once for each, that it has failed.
    """

    def __init__(self, names: Sequence[str], run: LoggedRun, warn: Callable[[Sequence[str]], None]):
        self._warn, self._open = warn, dict.fromkeys(names)
        self._each(lambda name, _: self._open.update({name: loggers.get(name)(run)}))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Gives a row to all."""
        self._each(lambda _, logger: logger.write(step, values))

    def close(self, error: BaseException | None) -> None:
        """Closes all, and tells them what ended the training, None where it is done."""
        self._each(lambda _, logger: logger.close(error))
        self._open.clear()

    def _each(self, do: Callable[[str, Any], object]) -> None:
        for name, logger in list(self._open.items()):
            try:
                do(name, logger)
            except Exception as error:  # A logger's library may raise whatever it likes.
                del self._open[name]
                kept = "metrics.csv has every row, and the training goes on"
                self._warn([f"logger {name} has failed and gets no more rows ({told(error)}); {kept}"])
