"""`jaxad bench`: one of the benchmarks of `jaxad.bench`, with the parameters of its function as flags."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from jaxad.cli._choosing import choose, first_lines
from jaxad.cli._command import Command
from jaxad.cli._reading import read


@dataclass(frozen=True)
class Bench(Command):
    """Time a part of jaxad on this machine."""

    words: ClassVar[str] = "bench"
    # Some tell how long compiling takes.
    compilation_cache = "off"

    name: str
    """Name of the benchmark."""
    options: Any
    """Its parameters, a dataclass."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """As for other commands; the first word is the benchmark's name."""
        from jaxad.bench import benchmarks

        prog = f"jaxad {cls.words}"
        description = first_lines(cls)
        name = choose(words, benchmarks, prog=prog, description=description)
        parameters = _parameters(name, benchmarks.get(name))
        return cls(name, read(parameters, words[1:], prog=f"{prog} {name}", description=first_lines(parameters)))

    def run(self) -> None:
        """Runs the benchmark."""
        from jaxad.bench import benchmarks

        given = {field.name: getattr(self.options, field.name) for field in dataclasses.fields(self.options)}
        benchmarks.get(self.name)(**given)


def _parameters(name: str, function: Callable[..., None]) -> type:
    """A dataclass of a function's parameters, which all have defaults, with the function's docstring."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields = [
        (parameter.name, hints[parameter.name], dataclasses.field(default=parameter.default))
        for parameter in inspect.signature(function).parameters.values()
    ]
    made = dataclasses.make_dataclass(name, fields, frozen=True)
    made.__doc__ = inspect.getdoc(function)
    return made
