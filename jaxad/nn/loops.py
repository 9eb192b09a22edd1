"""Loops over parts of a batch, one of which is held at a time, without copies of what all of them read or make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from jaxad.nn.rows import own_rows


def in_parts(batch: Any, parts: int) -> Any:
    """A pytree of rows [b ...] as [parts b/parts ...]: part i has every `parts`-th row from i on.

    So each part stays divided over the devices as the batch was.
    """
    return jax.tree.map(lambda a: jnp.moveaxis(jnp.reshape(a, (-1, parts, *a.shape[1:])), 1, 0), batch)


def by_parts(function: Callable[..., Any], parts: int, *arrays: Any) -> Any:
    """What a function makes of the rows of a batch, of which it is given one part after the other.

    Args:
        function: makes a pytree of arrays [b/parts ...] of such rows.
        parts: how many; times the number of devices they divide the rows.
        arrays: rows [b ...].

    Returns:
        Its arrays, [b ...], each device with rows of its own.
    """
    if parts == 1:
        return function(*arrays)
    found = jax.lax.map(lambda part: jax.tree.map(in_order, function(*part)), in_parts(arrays, parts))
    return jax.tree.map(lambda a: own_rows(jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:])), found)


def in_order(array: Any) -> Any:
    """The same array, its axes in memory as they are written.

    For what goes into a loop or comes out of it: compilers would else give it the order that suits the loop, and hold a
    copy in the other. Over several devices it is left to them: to ask for an order there is to gather the array first.
    """
    if jnp.ndim(array) < 2 or jax.sharding.get_abstract_mesh().size > 1:
        return array
    return with_layout_constraint(array, Layout(major_to_minor=tuple(range(jnp.ndim(array)))))
