"""AdamW whose steps are scaled down where gradients outgrow their past (StableAdamW, arXiv 2304.13013)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class StableAdamWState(NamedTuple):
    """Steps done, means of gradients and of their squares, and the largest that the latter have been."""

    count: jax.Array
    mean: Any
    square: Any
    largest: Any


def stable_adamw(
    rate: Callable[[Any], Any],
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    first_moment: str = "float32",
) -> optax.GradientTransformation:
    """StableAdamW with AMSGrad's maximum, as Dinomaly's public code has it.

    A step of AdamW over max(1, root mean square of gradient / denominator), for each array by itself. The maximum is
    that of the squares before their bias is corrected, which `optax.scale_by_amsgrad` takes after it.

    Args:
        rate: learning rate of a step, counted from 0.
        b1, b2: decays of the means of gradients and of their squares.
        eps: added to the denominator; the default is Dinomaly's.
        weight_decay: decoupled, times the learning rate alone.
        first_moment: type in which the mean of gradients is kept.
    """

    def init(params: Any) -> StableAdamWState:
        mean = jax.tree.map(lambda array: jnp.zeros_like(array, dtype=first_moment), params)
        return StableAdamWState(jnp.int32(0), mean, *(jax.tree.map(jnp.zeros_like, params) for _ in range(2)))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, StableAdamWState]:
        count: Any = optax.safe_increment(state.count)
        now = rate(state.count)
        mean = optax.tree.update_moment(updates, state.mean, b1, 1)
        square = optax.tree.update_moment(updates, state.square, b2, 2)
        largest = jax.tree.map(jnp.maximum, state.largest, square)
        mean_left, square_left = 1 - b1**count, 1 - b2**count

        def step(g: jax.Array, m: jax.Array, v: jax.Array, p: jax.Array) -> jax.Array:
            denominator = jnp.sqrt(v) / jnp.sqrt(square_left) + eps
            growth = jnp.maximum(jnp.sqrt(jnp.square(g / denominator).mean()), 1)
            return -now * (m / denominator / mean_left / growth + weight_decay * p)

        steps = jax.tree.map(step, updates, mean, largest, params)
        return steps, StableAdamWState(count, optax.tree.cast(mean, jnp.dtype(first_moment)), square, largest)

    return optax.GradientTransformation(init, update)
