"""What all configs share: field types, the JSON round trip, presets, and checks that list every problem at once."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from jaxad.errors import ConfigError

C = TypeVar("C")

Precision = Literal["auto", "float32", "bfloat16"]

Blocks = tuple[int, ...] | Literal["middle"] | None
"""Which outputs of a backbone make the features: blocks by number from 0, averaged; or "middle", the middle third; or
None, from half the depth on. Of a convolutional network they are stages, concatenated, and both words stand for those
that end at strides 4, 8 and 16 (SPEC 26, 27)."""


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values; the inverse of `from_json`."""
    return {f.name: _jsonable(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_json(cls: type[C], values: dict[str, Any]) -> C:
    """A config of class `cls` from JSON values; fields that are not given keep their defaults.

    Raises:
        ConfigError: unknown field names or values of a wrong type, all listed at once.
    """
    given, problems = _read(cls, values)
    raise_problems(cls.__name__, problems)
    return cls(**given)


def check_types(config: Any) -> None:
    """Raises ConfigError listing every value that is of a wrong type or none of the choices."""
    _, problems = _read(type(config), to_json(config))
    # A list is what JSON has for a tuple; in a config it would make it unlike its own round trip, and not hashable.
    values = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    problems += [f"{name} = {value!r}: must be a tuple, not a list" for name, value in values if _holds_list(value)]
    raise_problems(type(config).__name__, problems)


def _holds_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, tuple) and any(map(_holds_list, value)))


def _read(cls: type, values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values as the types of their fields, and what is wrong with the others."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    problems = [f"{name}: no such field in {cls.__name__}" for name in values if name not in known]
    given = {}
    for name in (name for name in known if name in values):
        try:
            given[name] = _typed(hints[name], values[name])
        except (TypeError, ValueError) as error:
            problems.append(f"{name} = {values[name]!r}: {error}")
    return given, problems


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [_jsonable(item) for item in value] if isinstance(value, tuple) else value


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        problems = []
        for choice in (argument for argument in arguments if argument is not type(None)):
            try:
                return _typed(choice, value)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
        raise TypeError(" or ".join(problems))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"must be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError("must be a list")
        if arguments[-1] is Ellipsis:
            return tuple(_typed(arguments[0], item) for item in value)
        if len(value) != len(arguments):
            raise ValueError(f"must be {len(arguments)} values")
        return tuple(map(_typed, arguments, value))
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"must be of type {hint.__name__}")
    return value


def make_preset(cls: type[C], name: str, presets: dict[str, dict[str, Any]], changes: dict[str, Any]) -> C:
    """The config of class `cls` that a preset's values make, with `changes` to them; not checked yet.

    Raises:
        ConfigError: a name that is none of `presets`.
    """
    if name not in presets:
        raise ConfigError(f"preset {name!r}: {cls.__name__} has {', '.join(presets)}")
    return cls(**{**presets[name], **changes})


def at_least(config: Any, bound: float, names: tuple[str, ...]) -> list[str]:
    """A problem for each of these fields that is below `bound` or no number; None passes."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"{name} = {value}: must be at least {bound}"
        for name, value in values
        if value is not None and not value >= bound
    ]


def repeated_blocks(blocks: Blocks) -> list[str]:
    """A problem where block numbers are given but are none, or not all different."""
    if not isinstance(blocks, tuple) or (blocks and len(set(blocks)) == len(blocks)):
        return []
    return [f"blocks = {blocks}: needs one or more different block numbers"]


def raise_problems(name: str, problems: list[str]) -> None:
    """Raises ConfigError listing all problems of the config of that name, if there are any."""
    if problems:
        raise ConfigError("\n".join([f"{name} cannot be used:", *(f"  {problem}" for problem in problems)]))
