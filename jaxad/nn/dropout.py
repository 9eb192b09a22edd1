"""Dropout by explicit keys."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxad.types import Array


class Dropout:
    """Sets a share of values to 0 and makes up for it by the others, at every call with another key.

    Args:
        rate: the share, 0 to below 1.
        key: PRNG key of all calls; None for no dropout, as in inference.
    """

    def __init__(self, rate: float, key: Array | None):
        self._rate, self._key = rate, key if rate else None

    @property
    def idle(self) -> bool:
        """Whether all values stay as they are."""
        return self._key is None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[...] -> [...]."""
        if self._key is None:
            return x
        self._key, own = jax.random.split(self._key)
        return jnp.where(jax.random.bernoulli(own, 1 - self._rate, x.shape), x / (1 - self._rate), 0)
