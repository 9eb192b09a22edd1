"""What every setting means and where its default comes from, read off a config class; for the generated reference."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
import types
import typing
from itertools import pairwise
from typing import Any, Literal, NamedTuple


class SettingRow(NamedTuple):
    """One field of a config class; all values are text.

    Attributes:
        field: its name.
        type: what it may be, choices written out.
        default: its default, as Python writes it.
        source: "paper", "jaxad" or "published code: NAME"; "" for a field made without `setting`.
        reason: why this default, "" where the paper simply states it.
        help: the docstring below the field, on one line.
        decision: anchor in docs/decisions.md; "" for none.
    """

    field: str
    type: str
    default: str
    source: str
    reason: str
    help: str
    decision: str


def provenance(config_class: type) -> list[SettingRow]:
    """A row for each field of a config dataclass, in their order.

    Raises:
        OSError: its source file cannot be read.
    """
    hints, helps = typing.get_type_hints(config_class), _docstrings(config_class)
    return [
        SettingRow(
            field=field.name,
            type=_shown(hints[field.name]),
            default="" if field.default is dataclasses.MISSING else repr(field.default),
            source=field.metadata.get("source", ""),
            reason=field.metadata.get("reason", ""),
            help=helps.get(field.name, ""),
            decision=field.metadata.get("decision", ""),
        )
        for field in dataclasses.fields(config_class)
    ]


def _docstrings(config_class: type) -> dict[str, str]:
    """The string below each annotated field, by name; those of bases too."""
    found = {}
    for cls in reversed([cls for cls in config_class.__mro__ if dataclasses.is_dataclass(cls)]):
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        for field, text in pairwise(typing.cast(ast.ClassDef, definition).body):
            match field, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(words))):
                    found[name] = " ".join(words.split())
    return found


def _shown(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return " | ".join(f'"{choice}"' if isinstance(choice, str) else repr(choice) for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_shown, arguments))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_shown, arguments))}]"
    if hint is types.NoneType:
        return "None"
    return "..." if hint is Ellipsis else getattr(hint, "__name__", str(hint))
