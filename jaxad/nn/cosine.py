"""The cosine that all detectors measure with."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp

from jaxad.types import Array


def unit(x: Array) -> jax.Array:
    """Vectors [... c] in float32 and at unit length; those below 1e-12 stay short, zeros are zeros."""
    x = jnp.asarray(x, jnp.float32)
    return x * _inverse_length(x)


def cosine(x: Array, y: Array) -> jax.Array:
    """Cosine of each vector of x [... c] with that of y at the same place: float32 [...] in -1..1, 0 for zeros."""
    chex.assert_equal_shape([x, y], custom_message="x and y must have the same shape [... c]")
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    return (x * y).sum(-1) * _inverse_length(x)[..., 0] * _inverse_length(y)[..., 0]


def cosines(x: Array, y: Array) -> jax.Array:
    """Cosine of every vector of x [... n c] with every one of y [... k c]: float32 [... n k] in -1..1, 0 for zeros."""
    return jnp.matmul(unit(x), jnp.swapaxes(unit(y), -1, -2), precision="highest")


def _inverse_length(x: jax.Array) -> jax.Array:
    return jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))
