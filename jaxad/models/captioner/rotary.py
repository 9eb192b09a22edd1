"""Positions as rotations of queries and keys (arXiv 2104.09864), of longer texts than trained on too."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxad.models.captioner.config import Rotary
from jaxad.types import Array

Turns = tuple[jax.Array, jax.Array]
"""Cosine and sine of the angle of each pair of channels: float32 [b n 1 d/2]."""


def turns(rotary: Rotary, width: int, positions: Array, lengths: Array) -> Turns:
    """Rotations by position.

    Args:
        rotary: wavelengths.
        width: channels d of a head.
        positions: int [b n].
        lengths: tokens of each text so far, int [b]; "dynamic" wavelengths depend on them.
    """
    exponents = jnp.arange(0, width, 2, dtype=jnp.float32).reshape(1, -1) / width
    base = jnp.full((len(lengths), 1), rotary.base, jnp.float32)
    if rotary.scaling == "dynamic":
        longer = jnp.maximum(jnp.asarray(lengths, jnp.float32), rotary.limit).reshape(-1, 1) / rotary.limit
        base = base * (rotary.factor * longer - (rotary.factor - 1)) ** (width / (width - 2))
    frequencies = 1 / base**exponents
    places = jnp.asarray(positions, jnp.float32)
    if rotary.scaling == "linear":
        places = places / rotary.factor
    angles = places[:, :, None, None] * frequencies[:, None, None]
    return jnp.cos(angles), jnp.sin(angles)


def turned(x: jax.Array, by: Turns) -> jax.Array:
    """Queries or keys [b n heads d] rotated; channel i makes a pair with i + d/2. Of the type of x."""
    cosine, sine = by
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1).astype(x.dtype)
