"""Blocks that the Stable Diffusion autoencoder and UNet are made of.

Group and layer norms and softmax run in float32, all products in the compute type. Images and features are [b h w c].
"""

from __future__ import annotations

from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.precision import Conv, Linear
from jaxad.types import Array

Heads = Literal["mean", "each"]
"""Attention probabilities averaged over the heads, or of each head."""


def conv(n_in: int, n_out: int, *, stride: int = 1, padding: Any = 1, dtype: Any, rngs: nnx.Rngs) -> Conv:
    """A 3x3 convolution."""
    return Conv(n_in, n_out, (3, 3), strides=stride, padding=padding, dtype=dtype, rngs=rngs)


def linear(n_in: int, n_out: int, *, use_bias: bool = True, dtype: Any, rngs: nnx.Rngs) -> Linear:
    """A linear layer whose output is of the compute type."""
    return Linear(n_in, n_out, rounded=True, use_bias=use_bias, dtype=dtype, rngs=rngs)


def group_norm(width: int, groups: int, eps: float, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """A group norm that computes in float32 and returns it."""
    return nnx.GroupNorm(width, groups, epsilon=eps, use_fast_variance=False, dtype=jnp.float32, rngs=rngs)


def double(x: jax.Array) -> jax.Array:
    """Features of twice as many rows and columns, by nearest neighbor."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def attention_and_probabilities(
    query: Array, key: Array, value: Array, heads: int, kind: Heads
) -> tuple[jax.Array, jax.Array]:
    """Attention as `jaxad.nn.attention`, and the probabilities softmax(Q K^T / sqrt(d)) that it is made with.

    Args:
        query: [b n c].
        key, value: [b k c], of few keys: one head's logits are held at a time.
        heads: number of heads.
        kind: "mean" for the mean over heads, "each" for all of them.

    Returns:
        [b n c] of the type of `value`; and float32 [b n k], or [b heads n k] for "each".
    """
    chex.assert_rank([query, key, value], 3, custom_message="query must be [b n c], key and value [b k c]")
    q, k, v = (x.reshape(*x.shape[:-1], heads, -1) for x in (query, key, value))
    outputs, found = [], []
    for head in range(heads):
        logits = jnp.einsum("bqd,bkd->bqk", q[:, :, head], k[:, :, head], preferred_element_type=q.dtype)
        probabilities = jax.nn.softmax(logits.astype(jnp.float32) * q.shape[-1] ** -0.5)
        outputs.append(jnp.einsum("bqk,bkd->bqd", probabilities.astype(v.dtype), v[:, :, head]))
        mean = kind == "mean" and head > 0
        found = [found[0] + probabilities] if mean else [*found, probabilities]
    joined = jnp.stack(found, axis=1) if kind == "each" else found[0] / heads
    return jnp.stack(outputs, axis=2).reshape(query.shape), joined


class ResnetBlock(nnx.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x))) + time))), x projected where the width changes.

    Args:
        n_in, n_out: widths.
        groups, eps: of the group norms.
        time_width: width of the time embedding, None where there is none.
        dtype: compute type.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        groups: int,
        eps: float,
        time_width: int | None = None,
        dtype: Any,
        rngs: nnx.Rngs,
    ):
        self.norm1 = group_norm(n_in, groups, eps, rngs)
        self.conv1 = conv(n_in, n_out, dtype=dtype, rngs=rngs)
        self.time_emb_proj = linear(time_width, n_out, dtype=dtype, rngs=rngs) if time_width else None
        self.norm2 = group_norm(n_out, groups, eps, rngs)
        self.conv2 = conv(n_out, n_out, dtype=dtype, rngs=rngs)
        self.conv_shortcut = linear(n_in, n_out, dtype=dtype, rngs=rngs) if n_in != n_out else None

    def __call__(self, x: jax.Array, temb: jax.Array | None = None) -> jax.Array:
        """x [b h w n_in], temb [b time_width] -> [b h w n_out]."""
        h = self.conv1(nnx.silu(self.norm1(x)))
        if self.time_emb_proj is not None and temb is not None:
            h = h + self.time_emb_proj(nnx.silu(temb))[:, None, None, :]
        h = self.conv2(nnx.silu(self.norm2(h)))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nnx.Module):
    """Multi-head attention of x to context tokens; `bias` says whether queries, keys and values have one."""

    def __init__(self, width: int, context_width: int, heads: int, *, bias: bool, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        self.to_q = linear(width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_k = linear(context_width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_v = linear(context_width, width, use_bias=bias, dtype=dtype, rngs=rngs)
        self.to_out = linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, context: jax.Array, probabilities: Heads | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """x [b n c], context [b k d] -> [b n c], and the probabilities if asked for."""
        q, k, v = self.to_q(x), self.to_k(context), self.to_v(context)
        if probabilities is None:
            return self.to_out(attention(q, k, v, self.heads)), None
        y, found = attention_and_probabilities(q, k, v, self.heads, probabilities)
        return self.to_out(y), found


class SpatialAttention(nnx.Module):
    """x + self-attention among all positions of group_norm(x), one head: the middle of the autoencoder."""

    def __init__(self, width: int, *, groups: int, eps: float, dtype: Any, rngs: nnx.Rngs):
        self.group_norm = group_norm(width, groups, eps, rngs)
        self.attention = Attention(width, width, heads=1, bias=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] -> [b h w c]."""
        tokens = self.group_norm(x).reshape(len(x), -1, x.shape[-1])
        return x + self.attention(tokens, tokens)[0].reshape(x.shape)


class SpatialTransformer(nnx.Module):
    """Transformer2DModel: x + proj_out(block(proj_in(norm(x)))), the positions of x as tokens.

    A 1x1 convolution before or after flattening is a matrix product on tokens, so SD 1 and SD 2 have one form here.
    """

    def __init__(self, width: int, context_width: int, heads: int, *, groups: int, dtype: Any, rngs: nnx.Rngs):
        self.norm = group_norm(width, groups, 1e-6, rngs)
        self.proj_in = linear(width, width, dtype=dtype, rngs=rngs)
        self.block = TransformerBlock(width, context_width, heads, dtype=dtype, rngs=rngs)
        self.proj_out = linear(width, width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, context: jax.Array, probabilities: Heads | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """x [b h w c], context [b k d] -> [b h w c], and the cross-attention [b (heads) h w k] if asked for."""
        b, rows, columns, _ = x.shape
        tokens = self.proj_in(self.norm(x).reshape(b, rows * columns, -1))
        tokens, found = self.block(tokens, context, probabilities)
        if found is not None:
            found = found.reshape(*found.shape[:-2], rows, columns, -1)
        return x + self.proj_out(tokens).reshape(x.shape), found


class TransformerBlock(nnx.Module):
    """Self-attention, cross-attention to the context and a gated feed-forward layer, each x + branch(norm(x))."""

    def __init__(self, width: int, context_width: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.norm1, self.norm2, self.norm3 = (
            nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, dtype=jnp.float32, rngs=rngs) for _ in range(3)
        )
        self.attn1 = Attention(width, width, heads, bias=False, dtype=dtype, rngs=rngs)
        self.attn2 = Attention(width, context_width, heads, bias=False, dtype=dtype, rngs=rngs)
        self.ff = GEGLU(width, 4 * width, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: jax.Array, context: jax.Array, probabilities: Heads | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        normed = self.norm1(x)
        x = x + self.attn1(normed, normed)[0]
        y, found = self.attn2(self.norm2(x), context, probabilities)
        x = x + y
        return x + self.ff(self.norm3(x)), found


class GEGLU(nnx.Module):
    """Feed-forward layer value * gelu(gate) with (value, gate) one projection and the exact GELU (arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.proj = linear(width, 2 * hidden, dtype=dtype, rngs=rngs)
        self.out = linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        value, gate = jnp.split(self.proj(x), 2, axis=-1)
        return self.out(value * gelu(gate))
