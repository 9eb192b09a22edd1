"""The fields of a config.json: each of its type and within bounds, so that no network is begun that cannot be.

c = ConfigFields("config.json", config, {"hidden_size": 768, "num_hidden_layers": 12})
c.sizes("hidden_size"), c.depths("num_hidden_layers"), c.stop()
c["hidden_size"]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxad.errors import WeightsError

SIZE = 1 << 24
"""Largest width, vocabulary or side of an image."""
DEPTH = 128
"""Most blocks of a network or of one of its stages."""
LEVELS = 8
"""Most stages of a network."""
_SHOWN = 200


class ConfigFields(Mapping[str, Any]):
    """What a config says over what is taken where it says nothing; collects what cannot be.

    Args:
        where: the file, and the part of it, for messages.
        values: the config; any value of JSON.
        defaults: of the fields that it may lack.

    Raises:
        WeightsError: the config is no object.
    """

    def __init__(self, where: str, values: Any, defaults: Mapping[str, Any]):
        if not isinstance(values, Mapping):
            raise WeightsError(f"{where}: must be an object of fields, is {shown(values)}")
        self.where, self.problems = where, []
        self._values = {**defaults, **values}

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self):
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def check(self, names: Sequence[str], fits: Callable[[Any], bool], needed: str) -> bool:
        """Whether the fields that are there fit; a problem for each that does not."""
        unfit = [name for name in names if name in self and not fits(self[name])]
        self.problems += [f"{name} = {shown(self[name])}: must be {needed}" for name in unfit]
        return not unfit

    def sizes(self, *names: str, least: int = 1, most: int = SIZE) -> bool:
        """Whether each is one whole number in these bounds."""
        bounds = f"above {least - 1}" if most == SIZE else f"from {least} to {most}"
        return self.check(names, lambda value: is_size(value, least, most), f"one whole number {bounds}")

    def depths(self, *names: str) -> bool:
        """Whether each is a number of blocks."""
        return self.sizes(*names, most=DEPTH)

    def multiple(self, name: str, of: str) -> bool:
        """Whether both are whole numbers above 0 and the first is a multiple of the second, as a width is of heads."""
        return self.sizes(name, of) and self.check(
            [name], lambda value: value % self[of] == 0, f"a multiple of {of} = {self[of]}"
        )

    def numbers(self, *names: str) -> bool:
        """Whether each is a finite number above 0."""
        return self.check(names, is_number, "a number above 0")

    def flags(self, *names: str) -> bool:
        """Whether each is true or false."""
        return self.check(names, lambda value: isinstance(value, bool), "true or false")

    def lists(self, *names: str, fits: Callable[[Any], bool], needed: str) -> bool:
        """Whether each is a list of as many such values as a network can have stages."""
        before = len(self.problems)
        for name in names:
            values = self[name]
            if not isinstance(values, list | tuple) or len(values) > LEVELS:
                self.problems.append(f"{name} = {shown(values)}: must be a list of at most {LEVELS}")
            elif unfit := [value for value in values if not fits(value)]:
                self.problems.append(f"{name} = {shown(unfit)}: each must be {needed}")
        return len(self.problems) == before

    def one_of(self, **allowed: Sequence[Any]) -> bool:
        """Whether each is one of the values allowed."""
        wrong = [
            not self.check([name], lambda value, values=values: _among(value, values), " or ".join(map(repr, values)))
            for name, values in allowed.items()
        ]
        return not any(wrong)

    def without(self, *names: str) -> bool:
        """Whether all are absent, null, false, 0 or empty: settings that the network here does not have."""
        given = [name for name in names if self.get(name)]
        self.problems += [f"{name} = {shown(self[name])}: is not supported" for name in given]
        return not given

    def stop(self) -> None:
        """Raises WeightsError with all problems if there is any."""
        if self.problems:
            raise WeightsError("\n".join([f"{self.where} cannot be used:", *(f"  {p}" for p in self.problems)]))


def transformer_sizes(c: ConfigFields) -> dict[str, Any]:
    """Width, depth, heads and hidden width of a transformer, whose config has them under transformers' names."""
    names = {
        "width": "hidden_size",
        "depth": "num_hidden_layers",
        "heads": "num_attention_heads",
        "hidden": "intermediate_size",
    }
    return {name: c[field] for name, field in names.items()}


def plausible_depth(blocks: int, what: object) -> int:
    """A number of blocks that was told by tensors' names.

    Raises:
        WeightsError: no network has as many.
    """
    if blocks > DEPTH:
        raise WeightsError(f"{what}: {blocks} blocks; a network has at most {DEPTH}")
    return blocks


def shown(value: Any) -> str:
    """A value of JSON for a message, not at full length."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."


def is_size(value: Any, least: int = 1, most: int = SIZE) -> bool:
    """Whether a value is a whole number in these bounds; true and false are none."""
    return type(value) is int and least <= value <= most


def is_number(value: Any) -> bool:
    """Whether a value is a finite number above 0."""
    return type(value) in (int, float) and 0 < value < SIZE and math.isfinite(value)


def _among(value: Any, allowed: Sequence[Any]) -> bool:
    # 1 is True and 0 is False for Python, and not in JSON.
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)
