"""`--override NAME=VALUE`: settings of a checkpoint's config to change, each of the type that the config says."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from jaxad.config import from_json, to_json
from jaxad.errors import ConfigError


def overrides(words: Sequence[str], config: Any) -> dict[str, Any]:
    """The changes that the words say.

    Args:
        words: each NAME=VALUE, with "." between the names of nested settings; values as JSON, or texts as they are.
        config: the settings that are changed, a dataclass.

    Returns:
        New values of top-level fields, as JSON values.

    Raises:
        ConfigError: all words that are of another form, name no setting, or have a value of another type.
    """
    changes: dict[str, Any] = {}
    problems = []
    for word in words:
        name, separator, text = word.partition("=")
        try:
            if not separator:
                raise ConfigError("needs the form NAME=VALUE")
            top, *inner = name.replace("-", "_").split(".")
            changes[top] = _changed(config, [top, *inner], text, changes.get(top))
        except ConfigError as error:
            problems.append(f"--override {word}: {error}")
    if problems:
        raise ConfigError("\n  ".join(problems))
    return changes


def _changed(config: Any, path: Sequence[str], text: str, present: Any) -> Any:
    """The new JSON value of the first field of `path`, with what the text says at its end."""
    name, *rest = path
    known = [field.name for field in dataclasses.fields(config)]
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        nearest = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
        raise ConfigError(f"no such setting of {type(config).__name__}{nearest}")
    value = getattr(config, name)
    if rest:
        if not dataclasses.is_dataclass(value):
            raise ConfigError(f"{name} has no settings of its own")
        inner = to_json(value) if present is None else present
        return {**inner, rest[0]: _changed(from_json(type(value), inner), rest, text, inner.get(rest[0]))}
    for choice in _readings(text):
        try:
            from_json(type(config), {**to_json(config), name: choice})
            return choice
        except ConfigError:
            continue
    raise ConfigError(f"must be {_words(typing.get_type_hints(type(config))[name])}")


def _readings(text: str) -> list[Any]:
    """What a text may mean: its JSON value, and the text itself."""
    try:
        return [json.loads(text), text]
    except json.JSONDecodeError:
        return [text]


def _words(hint: Any) -> str:
    """A type in words: "an int", "one of ddim, ddpm"."""
    origin: Any = typing.get_origin(hint)
    arguments: tuple[Any, ...] = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin is typing.Literal:
        return f"{'one of ' if len(arguments) > 1 else ''}{', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list such as [{', '.join('...' if a is Ellipsis else a.__name__ for a in arguments)}]"
    plain: Mapping[Any, str] = {int: "an int", float: "a number", bool: "true or false", str: "a text"}
    return plain.get(hint, "null" if hint is type(None) else f"a {getattr(hint, '__name__', hint)}")
