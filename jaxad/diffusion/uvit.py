"""Prototype-aware U-ViT: a plain transformer with long skips and the timestep as a token (arXiv 2209.12152)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.diffusion.layers import (
    PrototypeAttention,
    SelfAttention,
    TimestepEmbedder,
    check_inputs,
    linear,
    positions_of,
)
from jaxad.nn.activations import gelu
from jaxad.nn.rematerialization import rematerialized
from jaxad.types import Array


class PrototypeUViTBlock(nnx.Module):
    """Pre-norm block: long skip (optional), self-attention, attention to prototypes (optional), feed-forward.

    Args:
        width, heads, mlp_ratio: of the block.
        skip: whether it takes the output of an earlier block.
        prototype_width: width of the prototypes; None for no attention to them.
        dtype: compute type.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        *,
        skip: bool,
        prototype_width: int | None,
        dtype,
        rngs: nnx.Rngs,
    ):
        norms = 2 + (prototype_width is not None)
        self.skip = linear(2 * width, width, dtype=dtype, rngs=rngs) if skip else None
        self.norms = nnx.List(nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) for _ in range(norms))
        self.self_attention = SelfAttention(width, heads, dtype=dtype, rngs=rngs)
        self.prototype_attention = (
            PrototypeAttention(width, prototype_width, heads, dtype=dtype, rngs=rngs) if prototype_width else None
        )
        hidden = round(width * mlp_ratio)
        self.mlp_in = linear(width, hidden, dtype=dtype, rngs=rngs, rounded=True)
        self.mlp_out = linear(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, x: Array, prototypes: Array | None, skip: Array | None) -> jax.Array:
        """x [b 1+n d], prototypes [b k c] or None, skip [b 1+n d] where the block takes one -> [b 1+n d]."""
        x = jnp.asarray(x)
        if self.skip is not None:
            assert skip is not None
            x = self.skip(jnp.concatenate([x, skip], axis=-1))
        x = x + self.self_attention(self.norms[0](x))
        if self.prototype_attention is not None:
            assert prototypes is not None, "prototypes must be given: the denoiser attends to them"
            x = x + self.prototype_attention(self.norms[1](x), prototypes)
        return x + self.mlp_out(gelu(self.mlp_in(self.norms[-1](x)).astype(jnp.float32)))


class PrototypeUViT(nnx.Module):
    """Predicts the noise (or v) in tokens [b n c]; a choice of denoiser of DPDiff-AD (paper, Table 9).

    Block i of the first half feeds block depth - 1 - i; the middle block of an odd depth has no skip. The paper gives
    no sizes; by default they are the DiT's. Arguments as those of `PrototypeDiT`.
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
        prototypes: bool = True,
        remat: bool = False,
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.grid, self.width, self.channels, self.remat = grid, width, channels, remat
        self.time = TimestepEmbedder(width, dtype=dtype, rngs=rngs)
        self.project_in = linear(channels, width, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            PrototypeUViTBlock(
                width,
                heads,
                mlp_ratio,
                skip=index >= depth - depth // 2,
                prototype_width=channels if prototypes else None,
                dtype=dtype,
                rngs=rngs,
            )
            for index in range(depth)
        )
        self.norm = nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs)
        self.project_out = linear(width, channels, dtype=dtype, rngs=rngs, zero=True)

    def __call__(self, x: Array, prototypes: Array | None, t: Array, places: Array | None = None) -> jax.Array:
        """x [b n c], prototypes [b k c] or None, t int [b] or [1] -> float32 [b n c]; zero at initialization.

        `places`, int [b n], are the numbers of the tokens in the grid; None where x holds all of them in order.
        """
        check_inputs(x, prototypes, t, grid=self.grid, channels=self.channels, places=places)
        tokens = self.project_in(x) + positions_of(places, self.grid, self.width)
        time = jnp.broadcast_to(self.time(t)[:, None], (len(x), 1, tokens.shape[-1]))
        x = jnp.concatenate([time, tokens], axis=1)
        skips = []
        for index, block in enumerate(self.blocks):
            run = rematerialized(block, self.remat)
            x = run(x, prototypes, skips.pop() if block.skip is not None else None)
            if index < len(self.blocks) // 2:
                skips.append(x)
        return self.project_out(self.norm(x[:, 1:]))
