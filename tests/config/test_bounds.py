"""No number that a setting is given makes anything but a ConfigError."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from jaxad.config import PatchBankConfig, TrainConfig
from jaxad.config.fields import LARGEST, LARGEST_SEED
from jaxad.errors import ConfigError
from tests.config.test_fields import CONFIGS

WHOLE = (-1, 0, 2**31, -(2**31), 2**32, 2**63, 10**30, -(10**30), 10**400)
BROKEN = (-1.0, 0.0, 1e300, math.nan, math.inf, -math.inf)
MAY_BE_BELOW_ZERO = {"clip_blocks"}


def kinds(hint: Any) -> set[type]:
    """The kinds of numbers in a type, however deep."""
    return {hint} & {int, float} | {kind for argument in typing.get_args(hint) for kind in kinds(argument)}


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value


def placed(number: float, default: Any, hint: Any) -> Any:
    """The number as a value of the field: in a tuple where it holds tuples."""
    if not isinstance(default, tuple):
        return (number,) if "tuple" in str(hint) else number
    return (placed(number, default[0], ""), *default[1:]) if default else (number,)


FIELDS = [
    pytest.param(cls, field.name, hints[field.name], id=f"{cls.__name__}.{field.name}")
    for cls in CONFIGS
    for hints in [typing.get_type_hints(cls)]
    for field in dataclasses.fields(cls)
    if kinds(hints[field.name])
]


def refusal(config: Any) -> str:
    """Why a config cannot be used; "" if it can."""
    try:
        config.check()
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("cls", "name", "hint"), FIELDS)
def test_a_nasty_number_is_refused_or_within_bounds(cls, name, hint):
    default = cls()
    for number in (*WHOLE, *BROKEN):
        if type(number) not in kinds(hint):
            continue
        value = placed(number, getattr(default, name), hint)
        if refusal(dataclasses.replace(default, **{name: value})):
            continue
        largest = LARGEST_SEED if name == "seed" else LARGEST
        assert all(math.isfinite(item) and abs(item) <= largest for item in flat(value))
        assert number >= 0 or name in MAY_BE_BELOW_ZERO


@pytest.mark.parametrize("cls", [TrainConfig, PatchBankConfig])
def test_seeds_are_what_numpy_and_jax_both_take(cls):
    assert [refusal(cls(seed=seed)) for seed in (0, LARGEST_SEED)] == ["", ""]
    assert all(f"seed = {seed}" in refusal(cls(seed=seed)) for seed in (-1, LARGEST_SEED + 1, 10**30))


def test_numbers_out_of_bounds_are_listed_at_once():
    listed = refusal(TrainConfig(learning_rate=math.nan, steps=10**30, seed=-1))
    assert all(name in listed for name in ("learning_rate", "steps", "seed"))
