"""Timesteps as diffusion networks take them."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp

from jaxad.types import Array


def timestep_embedding(t: Array, width: int = 256) -> jax.Array:
    """Sinusoids of t [b] with periods up to 10,000, cosines first, as in DDPM and its heirs: float32 [b width]."""
    chex.assert_rank(t, 1, custom_message="t must be [b]")
    half = width // 2
    frequency = jnp.exp(-math.log(1e4) * jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.asarray(t, jnp.float32)[:, None] * frequency[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
