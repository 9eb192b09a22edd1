"""Timesteps as diffusion networks take them."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxad.types import Array


def timestep_embedding(t: Array, width: int = 256) -> jax.Array:
    """Sinusoids of t [b] with periods up to 10,000, cosines first: float32 [b width] (SPEC 3.2, 6.5)."""
    half = width // 2
    frequency = jnp.exp(-math.log(1e4) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.asarray(t, jnp.float32)[:, None] * frequency[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
