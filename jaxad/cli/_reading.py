"""Words of a command line to a dataclass, by tyro: types known only at run time, presets, and two sizes of help."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import inspect
import io
import itertools
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import tyro

from jaxad.cli._printing import show
from jaxad.cli._terminal import bound_width, width
from jaxad.io.text import visible

C = TypeVar("C")

ALL = "--help-all"
ROOMY = 60
"""Columns in which every usage line of tyro fits."""


def read(
    cls: type[C],
    words: Sequence[str],
    *,
    prog: str,
    description: str = "",
    types: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
    fixed: Mapping[str, Any] | None = None,
) -> C:
    """The dataclass `cls` with what the words say.

    Args:
        cls: its fields are the flags, their docstrings the help.
        words: what stands behind the command's name.
        prog: the command's name, for help and messages.
        description: opens the help; the docstring of `cls` if not given.
        types: types of fields that `cls` leaves open.
        defaults: of fields, in place of those of `cls`.
        fixed: values of fields that are no flags.

    Raises:
        SystemExit: help was asked for (0), or the words do not fit (2); what to say has been printed.
    """
    helps = _helps(words)
    variant = _variant(cls, types or {}, defaults or {}, fixed or {})
    if helps:
        variant = _explained(variant, short=ALL not in helps)
        _introduce(description or inspect.getdoc(cls) or "")
    found = _parsed(variant, ["--help"] if ALL in helps else words, prog=prog, description="")
    return cls(**{f.name: getattr(found, f.name) for f in dataclasses.fields(cls)})  # type: ignore[arg-type]


def read_known(cls: type[C], words: Sequence[str], *, prog: str) -> tuple[C, list[str]]:
    """As `read`, with the words besides flags that found no place among the positional ones."""
    if _helps(words):
        read(cls, words, prog=prog)
    found, rest = _parsed(cls, words, prog=prog, return_unknown_args=True)
    if any(word.startswith("-") for word in rest):
        # tyro says what it does not know, and what comes near.
        _parsed(cls, words, prog=prog)
    return found, rest


def read_one(name: str, kind: Any, words: Sequence[str], *, prog: str, default: Any) -> Any:
    """What the words say of one flag of that type on which the others depend, such as a preset; else its default.

    Raises:
        SystemExit: it has no value, or none of its type (2); what to say has been printed.
    """
    alone = dataclasses.make_dataclass("Alone", [(name, kind, dataclasses.field(default=default))])
    return getattr(_parsed(alone, words, prog=prog, return_unknown_args=True, add_help=False)[0], name)


def one_of(choices: Sequence[str]) -> Any:
    """The type of a text that is one of these."""
    return Literal[tuple(choices)]  # type: ignore[valid-type]


def usage_error(prog: str, message: str) -> NoReturn:
    """Ends with status 2 after a message of wrong usage."""
    show(f"{prog}: {message}", error=True)
    sys.exit(2)


def _parsed(cls: Any, words: Sequence[str], **how: Any) -> Any:
    """What tyro makes of the words; its help and messages fit the terminal, whatever its width and the words are.

    tyro breaks no usage line and repeats words as they are: where that matters, what it prints is printed here.
    """
    bound_width()
    if width() >= ROOMY and all(visible(word) == word for word in words):
        return tyro.cli(cls, args=words, **how)
    out, errors = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=words, **how)
    finally:
        for said, error in ((out, False), (errors, True)):
            if text := said.getvalue().rstrip("\n"):
                show("\n".join(map(_broken, text.split("\n"))), error=error)


def _broken(line: str) -> str:
    """A line in as many as fit the terminal."""
    return line if len(line) <= width() else textwrap.fill(line, width(), subsequent_indent="    ")


def _helps(words: Sequence[str]) -> list[str]:
    """The words that ask for help."""
    return [word for word in words if word in ("-h", "--help", ALL)]


def _introduce(text: str) -> None:
    """Prints the paragraphs of a text, each broken into lines that fit the terminal."""
    show("\n\n".join(textwrap.fill(" ".join(part.split()), width()) for part in text.split("\n\n")) + "\n")


def _variant(cls: Any, types: Mapping[str, Any], defaults: Mapping[str, Any], fixed: Mapping[str, Any]) -> Any:
    """A subclass of `cls` with such fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    present = {field.name: field.default for field in dataclasses.fields(cls)}
    fields = []
    for name in dict.fromkeys((*types, *defaults, *fixed)):
        hint, default = types.get(name, hints[name]), defaults.get(name, present[name])
        if name in fixed:
            hint, default = tyro.conf.Suppress[Any], fixed[name]
        fields.append((name, hint, dataclasses.field(default=default)))
    return dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), frozen=True, kw_only=True)


def _explained(cls: Any, *, short: bool, values: Any = None) -> Any:
    """A subclass of `cls` that has help texts in one line for tyro to break; a short one leaves the rarer settings out.

    Args:
        cls: a dataclass; where it has `MAIN`, names of its fields, the other ones are rarer.
        short: what is wanted.
        values: an instance with the defaults, None for those of the class.
    """
    hints, main = typing.get_type_hints(cls, include_extras=True), getattr(cls, "MAIN", None)
    texts = {name: text for base in reversed(cls.__mro__) for name, text in _docstrings(base).items()}
    fields, rarer = [], 0
    for field in dataclasses.fields(cls):
        hint, default = hints[field.name], field.default if values is None else getattr(values, field.name)
        if short and main is not None and field.name not in main:
            hint, rarer = tyro.conf.Suppress[hint], rarer + 1
        elif dataclasses.is_dataclass(hint):
            hint = _explained(hint, short=short, values=default)
            default = hint(**{inner.name: getattr(default, inner.name) for inner in dataclasses.fields(hint)})
        elif field.name in texts:
            hint = Annotated[hint, tyro.conf.arg(help=texts[field.name])]
        fields.append((field.name, hint, dataclasses.field(default=default)))
    made: Any = dataclasses.make_dataclass(cls.__name__, fields, bases=(cls,), frozen=True, kw_only=True)
    more = f" {rarer} more settings: {ALL}." if rarer else ""
    made.__doc__ = " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split()) + more
    return made


def _docstrings(cls: type) -> dict[str, str]:
    """The docstrings below the fields of a class, each in one line; none where its source is not at hand."""
    try:
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):
        return {}
    body = found.body if isinstance(found, ast.ClassDef) else []
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
