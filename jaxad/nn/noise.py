"""Normal noise: the numbers of `jax.random.normal`, drawn in less time on CPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl

from jaxad.types import Array

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def normal(key: Array, shape: Sequence[int]) -> jax.Array:
    """Standard normal noise, float32, bit for bit that of `jax.random.normal`.

    JAX's Threefry is a loop on CPUs, each step of which reads and writes all numbers, so that it compiles fast. As one
    expression it takes half the time.

    Args:
        key: of `jax.random.key`.
        shape: of the noise.
    """
    shape, config = tuple(shape), cast(Any, jax.config)
    usual = jax.random.key_impl(key) == "threefry2x32" and config.jax_threefry_partitionable
    if not usual or math.prod(shape) >= 2**32:
        return jax.random.normal(key, shape, jnp.float32)

    def drawn(impl: Any, data: jax.Array) -> jax.Array:
        return jax.random.normal(jax.random.wrap_key_data(data, impl=impl), shape, jnp.float32)

    on_cpu, elsewhere = partial(drawn, _IN_ONE), partial(drawn, threefry_prng_impl)
    return jax.lax.platform_dependent(jax.random.key_data(key), cpu=on_cpu, default=elsewhere)


def _bits(key: jax.Array, bit_width: int, shape: Sequence[int]) -> jax.Array:
    """uint32 of that shape: Threefry-2x32 of 20 rounds (J. Salmon et al., SC 2011) of the numbers from 0 on."""
    assert bit_width == 32, "only 32 bits at once are drawn"
    keys = key[0], key[1], key[0] ^ key[1] ^ _PARITY
    y = jnp.arange(math.prod(shape), dtype=jnp.uint32) + keys[1]
    x = jnp.broadcast_to(keys[0], y.shape)
    for group in range(5):
        for by in _ROTATIONS[group % 2]:
            x = x + y
            y = ((y << by) | (y >> (32 - by))) ^ x
        x, y = x + keys[(group + 1) % 3], y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return (x ^ y).reshape(shape)


_IN_ONE = define_prng_impl(
    key_shape=(2,),
    seed=threefry_prng_impl.seed,
    split=threefry_prng_impl.split,
    random_bits=_bits,
    fold_in=threefry_prng_impl.fold_in,
    name="threefry in one expression",
    tag="fry1",
)
