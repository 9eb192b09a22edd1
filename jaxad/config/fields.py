"""What all configs share: field types, provenance, presets, the JSON round trip, checks that list all problems."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from jaxad.errors import ConfigError

C = TypeVar("C")
T = TypeVar("T")

Precision = Literal["auto", "float32", "bfloat16"]

Blocks = tuple[int, ...] | Literal["middle"] | None
"""Outputs of a backbone that make the features: blocks by number from 0, averaged; or "middle", the middle third; or
None, all from half the depth on. For a convolutional network they are stages, which are concatenated, and "middle" and
None both stand for those that end at strides 4, 8 and 16."""


LARGEST = 2**31 - 1
"""Largest whole number of a setting: what is computed of them is computed in 32 bits."""
LARGEST_FLOAT = 3e38
LARGEST_SEED = 2**32 - 1


def setting(default: T, *, source: str, reason: str = "", decision: str = "") -> T:
    """A dataclass field that says where its default comes from; the docstring below the field says what it means.

    Args:
        default: the field's default, immutable.
        source: "paper", "jaxad", or "published code: NAME" with the project's name.
        reason: why this value, and what the paper leaves open; needed unless the source is the paper.
        decision: anchor of the paragraph in docs/decisions.md that says more; "" for none.

    Returns:
        `dataclasses.field(default=default)` with `source`, `reason` and `decision` as its metadata; typed as its
        default, as type checkers expect of a field.

    Raises:
        ValueError: an unknown source, or a default that is not from the paper and has no reason.
    """
    if source not in ("paper", "jaxad") and not source.startswith("published code: "):
        raise ValueError(f'source {source!r}: must be "paper", "jaxad" or "published code: NAME"')
    if source != "paper" and not reason:
        raise ValueError(f"source {source!r} needs a reason")
    metadata = {"source": source, "reason": reason, "decision": decision}
    return dataclasses.field(default=default, metadata=metadata)  # type: ignore[return-value]


class Config:
    """Base of the config dataclasses: named presets, and one check of all fields.

    A subclass is a frozen dataclass. It lists its presets in `PRESETS` and extends `problems` by what cannot work.
    """

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"default": {}}
    """What each preset changes of the defaults, by its name; the first one is what `preset()` gives."""
    RESOURCES: ClassVar[tuple[str, ...]] = ()
    """Fields that say how results are computed, kept and told, and change them by rounding at most: a run goes on with
    other values of these."""
    ALTERNATIVES: ClassVar[tuple[str, ...]] = ()
    """Fields that say the same in different ways: one of them is given, and takes the place of a preset's."""
    MAIN: ClassVar[tuple[str, ...] | None] = None
    """Fields that `--help` shows, None for all; the others are rarer settings, which `--help-all` shows too."""

    @classmethod
    def presets(cls) -> tuple[str, ...]:
        """Names of the presets, the default one first."""
        return tuple(cls.PRESETS)

    @classmethod
    def preset(cls, name: str | None = None, **changes: Any) -> Self:
        """The values of a preset, with `changes` to them; not checked yet.

        Raises:
            ConfigError: no preset has that name.
        """
        return make_preset(cls, name, cls.PRESETS, changes)

    def instead_of(self, preset: Self) -> Self:
        """The values of a preset and what was changed of them: without those whose place an alternative has taken."""
        changed = [name for name in self.ALTERNATIVES if getattr(self, name) != getattr(preset, name)]
        given: Any = self
        cleared = {name: None for name in self.ALTERNATIVES if changed and name not in changed}
        return dataclasses.replace(given, **cleared)

    def settled(self) -> tuple[str, ...]:
        """Fields that a trained detector keeps, because what was measured after its training holds for them alone."""
        return ()

    def problems(self) -> list[str]:
        """What cannot work though the types are right: a line for each problem, which begins with the field's name."""
        return []

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        # Numbers out of all bounds first: what `problems` computes of them need not end.
        raise_problems(type(self).__name__, out_of_bounds(self) or self.problems())


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values; the inverse of `from_json`."""
    return {f.name: _jsonable(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_json(cls: type[C], values: dict[str, Any]) -> C:
    """A config of class `cls` from JSON values; fields that are not given keep their defaults.

    Raises:
        ConfigError: unknown field names or values of the wrong type, all listed at once.
    """
    given, problems = read_fields(cls, values)
    raise_problems(cls.__name__, problems)
    return cls(**given)


def check_types(config: Any) -> None:
    """Raises ConfigError listing every value that has the wrong type or is not one of the choices."""
    _, problems = read_fields(type(config), to_json(config))
    # JSON has lists for tuples; a list in a config would differ from its own round trip and could not be hashed.
    values = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    problems += [f"{name} = {value!r}: must be a tuple, not a list" for name, value in values if _holds_list(value)]
    raise_problems(type(config).__name__, problems)


def _holds_list(value: Any) -> bool:
    return isinstance(value, list) or (isinstance(value, tuple) and any(map(_holds_list, value)))


def read_fields(cls: type, values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """JSON values of fields of a dataclass as the types of these fields, and a line for each that is wrong."""
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]
    problems = [unknown_name(name, cls.__name__, known) for name in values if name not in known]
    given = {}
    for name in (name for name in known if name in values):
        try:
            given[name] = _typed(hints[name], values[name])
        except (TypeError, ValueError) as error:
            problems.append(f"{name} = {values[name]!r}: {error}")
    return given, problems


def unknown_name(name: str, owner: str, known: Sequence[str]) -> str:
    """The line that something has no field of a name, with the nearest that it has."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such field in {owner}" + (f"; did you mean {near[0]}?" if near else "")


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
    if origin is Mapping:
        if not isinstance(value, dict):
            raise TypeError("must be an object")
        return {_typed(arguments[0], key): _typed(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"must be of type {hint.__name__}")
    return value


def make_preset(
    cls: type[C], name: str | None, presets: Mapping[str, Mapping[str, Any]], changes: Mapping[str, Any]
) -> C:
    """The config of class `cls` that a preset's values make, with `changes` to them; not checked yet.

    Args:
        cls: class of the config.
        name: of the preset; None for the first one.
        presets: what each changes of the defaults.
        changes: values of further fields, which win over the preset's; one of `Config.ALTERNATIVES` over all of them.

    Raises:
        ConfigError: no preset has that name.
    """
    chosen = next(iter(presets)) if name is None else name
    if chosen not in presets:
        raise ConfigError(f"preset {chosen!r}: {cls.__name__} has {', '.join(presets)}")
    alternatives = getattr(cls, "ALTERNATIVES", ())
    replaced = alternatives if changes.keys() & set(alternatives) else ()
    values = {field: value for field, value in presets[chosen].items() if field not in replaced}
    return cls(**{**values, **changes})


def at_least(config: Any, bound: float, names: tuple[str, ...]) -> list[str]:
    """A problem for each of these fields that is below `bound` or not a number; None passes."""
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"{name} = {value}: must be at least {bound}"
        for name, value in values
        if value is not None and not value >= bound
    ]


def shares(config: Any, names: tuple[str, ...]) -> list[str]:
    """A problem for each of these fields that is no share from 0 to below 1."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"{name} = {value}: must be 0, or a share below 1" for name, value in values if not 0 <= value < 1]


def bad_seed(name: str, seed: int) -> list[str]:
    """A problem if the seed is none that numpy and JAX both take."""
    return [] if 0 <= seed <= LARGEST_SEED else [f"{name} = {seed}: must be 0 to {LARGEST_SEED}"]


def out_of_bounds(config: Any) -> list[str]:
    """A problem for each number that is not finite or that 32 bits cannot hold, and for each field `seed` beyond its
    bounds."""
    problems = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "seed":
            problems += bad_seed("seed", value)
        elif not all(map(_is_bounded, _numbers(value))):
            problems.append(f"{field.name} = {value}: must be finite, and within {LARGEST} in whole numbers")
    return problems


def _numbers(value: Any) -> list[int | float]:
    if isinstance(value, tuple):
        return [number for item in value for number in _numbers(item)]
    return [value] if isinstance(value, int | float) else []


def _is_bounded(number: int | float) -> bool:
    return abs(number) <= (LARGEST if isinstance(number, int) else LARGEST_FLOAT)


def repeated_blocks(blocks: Blocks) -> list[str]:
    """A problem if the block numbers are an empty tuple, repeat one or are below 0."""
    if not isinstance(blocks, tuple) or (blocks and len(set(blocks)) == len(blocks) and min(blocks) >= 0):
        return []
    return [f"blocks = {blocks}: needs one or more different block numbers from 0"]


def raise_problems(name: str, problems: list[str]) -> None:
    """Raises ConfigError with all problems of the config class of that name; does nothing if there are none."""
    if problems:
        raise ConfigError("\n".join([f"{name} cannot be used:", *(f"  {problem}" for problem in problems)]))
