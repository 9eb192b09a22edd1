"""Prototype-aware U-Net on the token grid: residual convolutions and attention at two scales (arXiv 2006.11239)."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.diffusion.layers import PrototypeAttention, SelfAttention, TimestepEmbedder, check_inputs, linear
from jaxad.nn.precision import Conv
from jaxad.nn.rematerialization import rematerialized
from jaxad.types import Array


class ResidualBlock(nnx.Module):
    """Two 3x3 convolutions with group norm and SiLU; the timestep scales and shifts between them.

    Args:
        n_in, n_out: channels of input and output; where they differ, a linear shortcut joins them.
        time_width: width of the condition.
        dtype: compute type of the convolutions; norms and the residual stream stay float32.
    """

    def __init__(self, n_in: int, n_out: int, time_width: int, *, dtype, rngs: nnx.Rngs):
        conv = partial(Conv, kernel_size=(3, 3), dtype=dtype, rngs=rngs)
        self.norm_in, self.norm_out = _group_norm(n_in, rngs), _group_norm(n_out, rngs)
        self.conv_in = conv(n_in, n_out)
        self.time = linear(time_width, 2 * n_out, dtype=dtype, rngs=rngs)
        self.conv_out = conv(n_out, n_out, kernel_init=nnx.initializers.zeros_init())
        self.shortcut = linear(n_in, n_out, dtype=dtype, rngs=rngs) if n_in != n_out else None

    def __call__(self, x: Array, condition: Array) -> jax.Array:
        """x [b h w n_in], condition [b d] (after SiLU) -> float32 [b h w n_out]."""
        x = jnp.asarray(x)
        scale, shift = jnp.split(self.time(condition)[:, None, None, :], 2, axis=-1)
        y = self.conv_in(nnx.silu(self.norm_in(x))).astype(jnp.float32)
        y = self.conv_out(nnx.silu(self.norm_out(y) * (1 + scale) + shift)).astype(jnp.float32)
        return y + (self.shortcut(x) if self.shortcut is not None else x)


class AttentionBlock(nnx.Module):
    """Attention among the cells of the grid, then to the prototypes (optional), each added to its input.

    Args:
        width, heads: of both attentions.
        prototype_width: width of the prototypes; None for no attention to them.
        dtype: compute type.
    """

    def __init__(self, width: int, heads: int, prototype_width: int | None, *, dtype, rngs: nnx.Rngs):
        self.norm = _group_norm(width, rngs)
        self.self_attention = SelfAttention(width, heads, dtype=dtype, rngs=rngs, zero=True)
        self.prototype_norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) if prototype_width else None
        self.prototype_attention = (
            PrototypeAttention(width, prototype_width, heads, dtype=dtype, rngs=rngs, zero=True)
            if prototype_width
            else None
        )

    def __call__(self, x: Array, prototypes: Array | None) -> jax.Array:
        """x [b h w d], prototypes [b k c] or None -> [b h w d]."""
        b, h, w, d = x.shape
        y = jnp.reshape(x, (b, h * w, d)) + self.self_attention(self.norm(x).reshape(b, h * w, d))
        if self.prototype_attention is not None:
            assert self.prototype_norm is not None
            assert prototypes is not None, "prototypes must be given: the denoiser attends to them"
            y = y + self.prototype_attention(self.prototype_norm(y), prototypes)
        return y.reshape(b, h, w, d)


class PrototypeUNet(nnx.Module):
    """Predicts the noise (or v) in tokens [b n c]; a choice of denoiser of DPDiff-AD (paper, Table 9).

    Two levels, the token grid at `width` and half of it at twice the width, two residual blocks with attention at each
    on the way down and on the way up. The paper gives no sizes; these match the DiT's parameters within a quarter.

    Args:
        channels: width c of tokens and prototypes.
        grid: rows and columns of tokens, any numbers.
        width: channels of the first level.
        heads: attention heads at both levels.
        prototypes: whether blocks attend to prototypes.
        remat: whether training computes each block's activations again instead of keeping them (jax.checkpoint).
        dtype: compute type; the residual stream, norms and softmax stay float32.
    """

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        *,
        width: int,
        heads: int,
        prototypes: bool = True,
        remat: bool = False,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.grid, self.channels, self.remat = grid, channels, remat
        residual = partial(ResidualBlock, time_width=width, dtype=dtype, rngs=rngs)
        attend = partial(AttentionBlock, heads=heads, prototype_width=channels if prototypes else None)
        attend = partial(attend, dtype=dtype, rngs=rngs)
        self.time = TimestepEmbedder(width, dtype=dtype, rngs=rngs)
        self.project_in = linear(channels, width, dtype=dtype, rngs=rngs)
        self.down_fine = nnx.List([residual(width, width), residual(width, width)])
        self.down_fine_attention = nnx.List([attend(width), attend(width)])
        self.shrink = Conv(width, width, (3, 3), strides=2, dtype=dtype, rngs=rngs)
        self.down_coarse = nnx.List([residual(width, 2 * width), residual(2 * width, 2 * width)])
        self.down_coarse_attention = nnx.List([attend(2 * width), attend(2 * width)])
        self.up_coarse = nnx.List([residual(4 * width, 2 * width), residual(4 * width, 2 * width)])
        self.up_coarse_attention = nnx.List([attend(2 * width), attend(2 * width)])
        self.grow = Conv(2 * width, width, (3, 3), dtype=dtype, rngs=rngs)
        self.up_fine = nnx.List([residual(2 * width, width), residual(2 * width, width)])
        self.up_fine_attention = nnx.List([attend(width), attend(width)])
        self.norm = _group_norm(width, rngs)
        self.project_out = linear(width, channels, dtype=dtype, rngs=rngs, zero=True)

    def __call__(self, x: Array, prototypes: Array | None, t: Array) -> jax.Array:
        """x [b n c], prototypes [b k c] or None, t int [b] or [1] -> float32 [b n c]; zero at initialization."""
        check_inputs(x, prototypes, t, grid=self.grid, channels=self.channels)
        condition = nnx.silu(self.time(t))

        def run(block: ResidualBlock, attend: AttentionBlock, y: jax.Array) -> jax.Array:
            layer = rematerialized(lambda y, p, c: attend(block(y, c), p), self.remat)
            return layer(y, prototypes, condition)

        y = self.project_in(x).reshape(x.shape[0], *self.grid, -1)
        skips = []
        for block, attend in zip(self.down_fine, self.down_fine_attention, strict=True):
            y = run(block, attend, y)
            skips.append(y)
        y = self.shrink(y).astype(jnp.float32)
        for block, attend in zip(self.down_coarse, self.down_coarse_attention, strict=True):
            y = run(block, attend, y)
            skips.append(y)
        for block, attend in zip(self.up_coarse, self.up_coarse_attention, strict=True):
            y = run(block, attend, jnp.concatenate([y, skips.pop()], axis=-1))
        rows, columns = self.grid
        y = jnp.repeat(jnp.repeat(y, 2, axis=1), 2, axis=2)[:, :rows, :columns]
        y = self.grow(y).astype(jnp.float32)
        for block, attend in zip(self.up_fine, self.up_fine_attention, strict=True):
            y = run(block, attend, jnp.concatenate([y, skips.pop()], axis=-1))
        return self.project_out(nnx.silu(self.norm(y)).reshape(*x.shape[:2], -1))


def _group_norm(width: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return nnx.GroupNorm(width, num_groups=math.gcd(width, 32), epsilon=1e-6, rngs=rngs)
