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


def few_rows(layer: nnx.Linear, x: Array, output: Any = None) -> jax.Array:
    """The product of a linear layer, [... o], with so few rows [... i] that it is they which are sent between devices.

    `jaxad.nn.precision.Linear` gathers its kernel, which pays for many rows. Here each device multiplies all rows with
    its share of the kernel; where they follow each other, layers that are divided along their outputs and along their
    inputs need no exchange between them.

    Args:
        layer: its `dtype` is that of the product, which accumulates in float32.
        x: rows.
        output: type of the result, None for float32.
    """
    product = jnp.matmul(jnp.asarray(x, layer.dtype), layer.kernel[...], preferred_element_type=jnp.float32)
    if layer.bias is not None:
        product = product + layer.bias[...].reshape((1,) * (product.ndim - 1) + (-1,))
    return product if output is None else product.astype(output)


def _constrained(x: jax.Array, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, spec)
