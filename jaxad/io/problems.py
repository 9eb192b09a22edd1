"""Everything that is wrong, collected before anything is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxad.errors import DataError, Problem


class Problems(list[Problem]):
    """A list of problems that errors can be caught into, and that is raised as a whole."""

    def add(self, kind: str, file: Path | str, detail: str, *, fatal: bool = True) -> None:
        """Appends a problem."""
        self.append(Problem(kind, str(file), detail, fatal))

    @contextmanager
    def collected(self, kind: str = "unreadable file", file: Path | str = "") -> Iterator[None]:
        """Takes up the problems of a DataError raised within; one of this kind, of this file, where it has none."""
        try:
            yield
        except DataError as error:
            self += problems_of(error, kind, file)

    @property
    def fatal(self) -> list[Problem]:
        """Those that are no mere notes."""
        return [problem for problem in self if problem.fatal]

    def stop(self, message: str) -> None:
        """Raises DataError with all fatal problems if there is any."""
        if fatal := self.fatal:
            raise DataError(message, fatal)


def problems_of(error: DataError, kind: str, file: Path | str) -> tuple[Problem, ...]:
    """The problems of an error; where it carries none, its message as the only one."""
    return error.problems or (Problem(kind, str(file), str(error)),)
