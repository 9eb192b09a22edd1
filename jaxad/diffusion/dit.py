"""Prototype-aware diffusion transformer: DiT (arXiv 2212.09748) whose blocks attend to prototypes (DPDiff-AD 4.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.diffusion.layers import (
    PrototypeAttention,
    SelfAttention,
    TimestepEmbedder,
    activated,
    check_inputs,
    linear,
    modulated,
    positions_of,
)
from jaxad.nn.rematerialization import rematerialized
from jaxad.types import Array


class PrototypeDiTBlock(nnx.Module):
    """adaLN-zero block: self-attention (optional), attention to prototypes (optional), feed-forward.

    Every branch is x + gate * branch(norm(x) * (1 + scale) + shift) with shift, scale and gate from the condition, the
    gates zero at the start. "Into each DiT block" of the paper is read as a third branch between DiT's two.

    Args:
        width, heads, mlp_ratio: of the block.
        self_attention: whether tokens attend to each other.
        prototype_width: width of the prototypes; None for no attention to them.
        dtype: compute type.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        self_attention: bool,
        prototype_width: int | None,
        dtype,
        rngs: nnx.Rngs,
    ):
        branches = 1 + bool(self_attention) + (prototype_width is not None)
        self.modulation = linear(width, 3 * width * branches, dtype=dtype, rngs=rngs, zero=True)
        self.self_attention = SelfAttention(width, heads, dtype=dtype, rngs=rngs) if self_attention else None
        self.prototype_attention = (
            PrototypeAttention(width, prototype_width, heads, dtype=dtype, rngs=rngs) if prototype_width else None
        )
        hidden = round(width * mlp_ratio)
        self.mlp_in = linear(width, hidden, dtype=dtype, rngs=rngs, rounded=True)
        self.mlp_out = linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, prototypes: Array | None, condition: Array) -> jax.Array:
        """x [b n d], prototypes [b k c] or None, condition [b d] or [1 d] (after SiLU) -> [b n d]."""
        x, modulation = jnp.asarray(x), self.modulation(condition)
        parts = iter(jnp.split(modulation[:, None, :], modulation.shape[-1] // x.shape[-1], axis=-1))

        def branch(x: jax.Array, layer) -> jax.Array:
            shift, scale, gate = next(parts), next(parts), next(parts)
            return x + gate * layer(modulated(x, shift, scale))

        attend_to = self.prototype_attention
        if self.self_attention is not None:
            x = branch(x, self.self_attention)
        if attend_to is not None:
            assert prototypes is not None, "prototypes must be given: the denoiser attends to them"
            x = branch(x, lambda y: attend_to(y, prototypes))
        return branch(x, lambda y: self.mlp_out(activated(self.mlp_in(y))))


class PrototypeDiT(nnx.Module):
    """Predicts the noise (or v) in tokens [b n c], conditioned on the timestep and on noisy prototypes [b k c].

    Args:
        channels: width c of tokens and prototypes.
        grid: rows and columns of tokens, for the fixed positions.
        width, heads, depth, mlp_ratio: of the transformer.
        self_attention: whether blocks attend among tokens.
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
        depth: int,
        mlp_ratio: float = 4.0,
        self_attention: bool = True,
        prototypes: bool = True,
        remat: bool = False,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.grid, self.width, self.channels, self.remat = grid, width, channels, remat
        self.time = TimestepEmbedder(width, dtype=dtype, rngs=rngs)
        self.project_in = linear(channels, width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            PrototypeDiTBlock(
                width,
                heads,
                mlp_ratio,
                self_attention=self_attention,
                prototype_width=channels if prototypes else None,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(depth)
        )
        self.modulation = linear(width, 2 * width, dtype=dtype, rngs=rngs, zero=True)
        self.project_out = linear(width, channels, dtype=dtype, rngs=rngs, zero=True)

    def __call__(self, x: Array, prototypes: Array | None, t: Array, places: Array | None = None) -> jax.Array:
        """x [b n c], prototypes [b k c] or None, t int [b] or [1] -> float32 [b n c]; zero at first (adaLN-zero).

        `places`, int [b n], are the numbers of the tokens in the grid; None where x holds all of them in order.
        """
        check_inputs(x, prototypes, t, grid=self.grid, channels=self.channels, places=places)
        condition = nnx.silu(self.time(t))
        x = self.project_in(x) + positions_of(places, self.grid, self.width)
        for block in self.blocks:
            x = rematerialized(block, self.remat)(x, prototypes, condition)
        shift, scale = jnp.split(self.modulation(condition)[:, None, :], 2, axis=-1)
        return self.project_out(modulated(x, shift, scale))
