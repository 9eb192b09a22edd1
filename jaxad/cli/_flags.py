"""From the names of parameters to flags: the one place where messages of the library become those of a command."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any


def with_flags(message: str, command: Any) -> str:
    """The message with the command's flags in place of the parameters that it names.

    Parameters are known by the form `name = value`, by a name before a colon at the start of a line, or by an
    underscore, which no other word has. Below "SomeConfig cannot be used:" the fields of that config go first.

    Args:
        message: of a JaxadError.
        command: a dataclass; nested ones have flags with their name as prefix, but for `options`, which have none.
    """
    names, groups = _names_of(command)
    shown, present = [], names
    for line in message.split("\n"):
        if found := re.search(r"(\w+) cannot be used:", line):
            present = {**names, **groups.get(found[1], {})}
        elif not line.startswith("  "):
            present = names
        shown.append(_translated(line, present))
    return "\n".join(shown)


def flag(name: str) -> str:
    """The flag of a parameter."""
    return f"--{name.replace('_', '-')}"


def _names_of(command: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Flags by name of parameter, and those of each nested config by the name of its class."""
    own: dict[str, str] = {}
    nested: dict[str, dict[str, str]] = {}
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if not dataclasses.is_dataclass(value):
            own[field.name] = flag(field.name)
        elif field.name == "options":
            own |= {inner.name: flag(inner.name) for inner in dataclasses.fields(value)}
        else:
            prefix = f"{flag(field.name)}."
            inners = dataclasses.fields(value)
            nested[type(value).__name__] = {inner.name: prefix + flag(inner.name)[2:] for inner in inners}
    every: dict[str, str] = {}
    for group in (own, *nested.values()):
        every = {**group, **every}
    return every, nested


def _translated(line: str, names: Mapping[str, str]) -> str:
    if not names:
        return line
    any_name = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    end = r"(?![\w/.=-])"

    def assigned(match: re.Match[str]) -> str:
        flag = names[match[1]]
        if match[2] in ("True", "False"):
            head, _, tail = flag.rpartition(".") if "." in flag else ("", "", flag.removeprefix("--"))
            start = f"{head}." if head else "--"
            return f"{start}{tail}" if match[2] == "True" else f"{start}no-{tail}"
        return f"{flag} {match[2] or ''}"

    line = re.sub(rf"(?<![\w/.=-])({any_name}) = (True\b|False\b)?", assigned, line)
    line = re.sub(rf"^(\s*)({any_name})(?=: |, (?:{any_name}):)", lambda m: m[1] + names[m[2]], line)
    marked = [name for name in names if "_" in name]
    if not marked:
        return line
    words = "|".join(sorted(map(re.escape, marked), key=len, reverse=True))
    return re.sub(rf"(?<![\w/.=-])({words}){end}", lambda m: names[m[1]], line)
