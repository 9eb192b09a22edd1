"""The exact GELU, and a softmax that is held in few bits."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU (arXiv 1606.08415); jax.nn.gelu takes erfc, which costs twice as much on CPUs."""
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def softmax(logits: jax.Array, dtype: Any) -> jax.Array:
    """Softmax along the last axis, computed in float32; the gradient is of the result as it is rounded.

    Args:
        logits: [... k] of any float type. Where a matrix product writes them in 16 bits and they are cast to float32
            here, compilers do so as they read them: neither the softmax nor its gradient holds them in float32.
        dtype: of the result.

    Returns:
        [... k], which sums to one.
    """
    found: Any = _softmax(logits.astype(jnp.float32), str(jnp.dtype(dtype)))
    return found


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _softmax(logits, dtype):
    return jax.nn.softmax(logits, axis=-1).astype(dtype)


def _softmax_forward(logits, dtype):
    weights = _softmax(logits, dtype)
    return weights, weights


def _softmax_backward(dtype, weights, gradient):
    # Or compilers would keep the weights as they were before they were rounded.
    weights = jax.lax.optimization_barrier(weights)
    weights, gradient = weights.astype(jnp.float32), gradient.astype(jnp.float32)
    return (weights * (gradient - (weights * gradient).sum(-1, keepdims=True)),)


_softmax.defvjp(_softmax_forward, _softmax_backward)
