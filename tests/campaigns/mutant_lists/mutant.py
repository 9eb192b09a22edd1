"""A wrong line."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A wrong line: a mistake in the method that a careful person could make.

    Attributes:
        part: of jaxad that it is in.
        name: what is wrong.
        file: where.
        right: what stands there, once.
        wrong: what takes its place.
        tests: what to run.
        before: the default test that failed when the mutant was first tried, "" where all passed, None where that was
            not noted.
    """

    part: str
    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    before: str | None = None
