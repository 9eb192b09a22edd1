"""Multi-head attention in the form that each platform runs fastest."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp

from jaxad.nn.flash_attention import on_cuda, on_tpu, with_logits
from jaxad.types import Array

CACHED = 1 << 21
"""Logits that a CPU holds at once at most: 8 MB in float32, about the size of its caches."""
ALL_HEADS = 1_600_000
"""Logits up to which a CPU holds those of all heads at once, where the rows of each fill whole vectors."""
VECTOR = 16
"""float32 of a vector of the widest CPUs."""


def attention_heads(width: int) -> int:
    """The most heads that divide `width` and have 64 channels or more each, as those of a ViT: 12 of 768."""
    return max(heads for heads in range(1, max(width // 64, 1) + 1) if width % heads == 0)


def attention(query: Array, key: Array, value: Array, heads: int, *, causal: bool = False) -> jax.Array:
    """softmax(Q K^T / sqrt(d)) V for every head, the softmax in float32.

    Args:
        query: [b n c].
        key, value: [b k c].
        heads: divides c into heads of d = c / heads channels.
        causal: whether position i sees only the keys 0 to i.

    Returns:
        [b n c] of the type of `value`. The platform that the program is compiled for says how: GPUs and TPUs take
        kernels that hold no logits (`jaxad.nn.flash_attention`), CPUs a few logits at a time.
    """
    chex.assert_rank([query, key, value], 3, custom_message="query must be [b n c], key and value [b k c]")
    chex.assert_equal_shape([key, value], custom_message="key and value must have one shape")
    chex.assert_is_divisible(query.shape[-1], heads, custom_message="heads must divide the channels c")
    q, k, v = (x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads) for x in (query, key, value))
    return _by_platform(q, k, v, causal=causal).reshape(query.shape)


@functools.partial(jax.jit, static_argnames="causal")
def _by_platform(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool) -> jax.Array:
    """Attention of q, k, v [b n heads d]; traced once for all layers of one shape, as every platform's way is."""
    of_a_head = q.shape[0] * q.shape[1] * k.shape[1]
    if causal or of_a_head > CACHED:
        on_cpu = functools.partial(_head_by_head, causal=True) if causal else _block_by_block
    elif k.shape[1] % VECTOR == 0 and of_a_head * q.shape[2] <= ALL_HEADS:
        on_cpu = _all_heads
    else:
        on_cpu = _head_by_head
    cuda, tpu, elsewhere = (functools.partial(f, causal=causal) for f in (on_cuda, on_tpu, with_logits))
    return jax.lax.platform_dependent(q, k, v, cpu=on_cpu, cuda=cuda, tpu=tpu, default=elsewhere)


def _all_heads(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Attention of q, k, v [b n heads d], all heads in one product: a sixth less of a layer's time at best."""
    return _mixed(*(x.swapaxes(1, 2) for x in (q, k, v))).swapaxes(1, 2)


def _head_by_head(q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool = False) -> jax.Array:
    """Attention of q, k, v [b n heads d], the logits of one head at a time."""
    seen = jnp.tril(jnp.ones((1, q.shape[1], k.shape[1]), bool)) if causal else None
    outputs = [_mixed(q[:, :, head], k[:, :, head], v[:, :, head], seen) for head in range(q.shape[2])]
    return jnp.stack(outputs, axis=2)


def _block_by_block(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """The same for many tokens: one image, head and block of queries at a time, computed again for the gradient."""
    b, n, heads, d = q.shape
    keys = k.shape[1]
    rows = n if n * keys <= CACHED else max(CACHED // (2 * keys), 1)
    q = jnp.pad(q, ((0, 0), (0, -n % rows), (0, 0), (0, 0)))
    q, k, v = (x.swapaxes(1, 2).reshape(b * heads, -1, d) for x in (q, k, v))
    block = jax.checkpoint(_mixed)

    def of_head(arrays: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        queries, k, v = arrays
        return jax.lax.map(lambda q: block(q, k, v), queries.reshape(-1, rows, d))

    y = jax.lax.map(of_head, (q, k, v))
    return y.reshape(b, heads, -1, d)[:, :, :n].swapaxes(1, 2)


def _mixed(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array | None = None) -> jax.Array:
    """Attention of one head, q [... n d], k and v [... k d]; `seen` is False where a query does not see a key.

    Dividing by the sum after the product with V spares a pass over the logits.
    """
    scaled = q * q.shape[-1] ** -0.5
    logits = jnp.einsum("...qd,...kd->...qk", scaled, k, preferred_element_type=jnp.float32)
    if seen is not None:
        logits = jnp.where(seen, logits, -jnp.inf)
    weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    mixed = jnp.einsum("...qk,...kd->...qd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return (mixed / weights.sum(-1, keepdims=True)).astype(v.dtype)
