"""Where the rows of a batch lie on a mesh whose first axis divides images and whose second shares parameters."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from jaxad.types import Array


def own_rows(x: jax.Array) -> jax.Array:
    """An array [b ...] of which each device has rows of its own."""
    devices = jax.sharding.get_abstract_mesh()
    return _constrained(x, PartitionSpec(devices.axis_names)) if devices.size > 1 else x


def shared_rows(x: jax.Array) -> jax.Array:
    """An array [b ...] of which devices that share parameters have the same rows."""
    devices = jax.sharding.get_abstract_mesh()
    return _constrained(x, PartitionSpec(devices.axis_names[0])) if devices.size > 1 else x


def in_turn(first: Array, second: Array) -> jax.Array:
    """The rows of two arrays [b ...] in turn, [2b ...], so that devices keep those that they have; `apart` undoes it.

    One array after the other would send half of them to other devices.
    """
    both = jnp.stack([first, second], axis=1)
    return both.reshape(-1, *both.shape[2:])


def apart(rows: Array) -> tuple[jax.Array, jax.Array]:
    """The two arrays [b ...] whose rows are in turn in one [2b ...]."""
    both = jnp.asarray(rows).reshape(-1, 2, *rows.shape[1:])
    return both[:, 0], both[:, 1]


def few_rows(layer: nnx.Linear, x: Array, output: Any = None) -> jax.Array:
    """The product of a linear layer, [... o], with so few rows [... i] that it is they which are sent between devices.

    `jaxad.nn.precision.Linear` gathers its kernel, which pays for many rows. Here each device multiplies all rows with
    its share of the kernel, which lies along the longer axis that can be divided. Of outputs each device then has its
    share; over inputs, sums are added up.

    Args:
        layer: its `dtype` is that of the product, which accumulates in float32.
        x: rows.
        output: type of the result, None for float32.
    """
    kernel = layer.kernel[...]
    product = jnp.matmul(jnp.asarray(x, layer.dtype), kernel, preferred_element_type=jnp.float32)
    devices = jax.sharding.get_abstract_mesh()
    if devices.size > 1:
        ways = devices.axis_sizes[1]
        along = kernel.shape[1] > kernel.shape[0] and kernel.shape[1] % ways == 0
        images, parameters = devices.axis_names
        spec = (images, *(None,) * (product.ndim - 2), parameters if along else None)
        product = _constrained(product, PartitionSpec(*spec))
    if layer.bias is not None:
        product = product + layer.bias[...].reshape((1,) * (product.ndim - 1) + (-1,))
    return product if output is None else product.astype(output)


def _constrained(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, spec)
