"""Prototype-aware diffusion transformer: DiT (arXiv 2212.09748) whose blocks attend to prototypes (DPDiff-AD 4.2)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.models.attention import attention
from jaxad.precision import Linear
from jaxad.types import Array


def timestep_embedding(t: Array, width: int = 256, max_period: float = 1e4) -> jax.Array:
    """Sinusoids of t [b], cosines first -> float32 [b width] (SPEC 3.2, DIT)."""
    frequency = jnp.exp(-math.log(max_period) * jnp.arange(width // 2, dtype=jnp.float32) / (width // 2))
    angle = t.astype(jnp.float32)[:, None] * frequency[None, :]
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def sincos_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed 2-D sine-cosine positions of an h x w grid, float32 [n width]: half columns, half rows (MAE, DiT)."""
    quarter = width // 4
    frequency = 1e4 ** -(np.arange(quarter) / quarter)
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency[None, :] for axis in (columns, rows)]
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    positions = np.concatenate(parts, axis=-1).astype(np.float32)
    return np.pad(positions, ((0, 0), (0, width - positions.shape[-1])))


def linear(n_in: int, n_out: int, *, dtype, rngs: nnx.Rngs, zero: bool = False) -> Linear:
    """A linear layer as DiT initialises it: Xavier uniform kernel, or zero for the gates and the output; zero bias."""
    kernel_init = nnx.initializers.zeros_init() if zero else nnx.initializers.xavier_uniform()
    return Linear(n_in, n_out, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


def _norm(x: Array) -> jax.Array:
    """Layer norm without scale and shift, in float32, eps 1e-6."""
    x = jnp.asarray(x, jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


class PrototypeDiTBlock(nnx.Module):
    """adaLN-zero block: self-attention (optional), attention to prototypes (optional), feed-forward.

    Every branch is x + gate * branch(norm(x) * (1 + scale) + shift) with shift, scale and gate from the condition, the
    gates zero at the start (SPEC row 8). Keys and values are linear in the layer norm of the prototypes (row 9).
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
        self.heads, self.dtype = heads, dtype
        self.branches = 1 + bool(self_attention) + (prototype_width is not None)
        self.modulation = linear(width, 3 * width * self.branches, dtype=dtype, rngs=rngs, zero=True)
        if self_attention:
            self.qkv = linear(width, 3 * width, dtype=dtype, rngs=rngs)
            self.self_out = linear(width, width, dtype=dtype, rngs=rngs)
        if prototype_width is not None:
            self.prototype_norm = nnx.LayerNorm(prototype_width, epsilon=1e-6, rngs=rngs)
            self.query = linear(width, width, dtype=dtype, rngs=rngs)
            self.key_value = linear(prototype_width, 2 * width, dtype=dtype, rngs=rngs)
            self.cross_out = linear(width, width, dtype=dtype, rngs=rngs)
        hidden = round(width * mlp_ratio)
        self.mlp_in = linear(width, hidden, dtype=dtype, rngs=rngs)
        self.mlp_out = linear(hidden, width, dtype=dtype, rngs=rngs)
        self.self_attention = bool(self_attention)
        self.cross_attention = prototype_width is not None

    def __call__(self, x: Array, prototypes: Array | None, condition: Array) -> jax.Array:
        """x [b n d], prototypes [b k c] or None, condition [b d] (after SiLU) -> [b n d]."""
        modulation = self.modulation(condition)
        parts = iter(jnp.split(modulation[:, None, :], 3 * self.branches, axis=-1))

        def branch(x: jax.Array, layer) -> jax.Array:
            shift, scale, gate = next(parts), next(parts), next(parts)
            return x + gate * layer(_norm(x) * (1 + scale) + shift)

        x = jnp.asarray(x)
        if self.self_attention:
            x = branch(x, self._attend_self)
        if self.cross_attention:
            x = branch(x, lambda y: self._attend_prototypes(y, prototypes))
        return branch(x, lambda y: self.mlp_out(nnx.gelu(self.mlp_in(y), approximate=True)))

    def _attend_self(self, x):
        return self.self_out(self._attention(*jnp.split(self.qkv(x), 3, axis=-1)))

    def _attend_prototypes(self, x, prototypes):
        key, value = jnp.split(self.key_value(self.prototype_norm(prototypes)), 2, axis=-1)
        return self.cross_out(self._attention(self.query(x), key, value))

    def _attention(self, query, key, value):
        q, k, v = (x.astype(self.dtype) for x in (query, key, value))
        return attention(q, k, v, self.heads)


class PrototypeDiT(nnx.Module):
    """Predicts the noise (or v) in tokens [b n c], conditioned on the timestep and on noisy prototypes [b k c].

    Args:
        channels: width c of tokens and prototypes.
        grid: rows and columns of tokens, for the fixed positions.
        width, heads, depth, mlp_ratio: of the transformer.
        self_attention: whether blocks attend among tokens.
        prototypes: whether blocks attend to prototypes.
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
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.grid = grid
        self.width = width
        normal = nnx.initializers.normal(0.02)
        self.time_in = Linear(256, width, kernel_init=normal, dtype=dtype, rngs=rngs)
        self.time_out = Linear(width, width, kernel_init=normal, dtype=dtype, rngs=rngs)
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

    def __call__(self, x: Array, prototypes: Array | None, t: Array) -> jax.Array:
        """x [b n c], prototypes [b k c] or None, t int [b] -> float32 [b n c]; zero at initialisation (adaLN-zero)."""
        time = self.time_out(nnx.silu(self.time_in(timestep_embedding(t))))
        condition = nnx.silu(time)
        x = self.project_in(x) + sincos_positions(self.grid, self.width)[None]
        for block in self.blocks:
            x = block(x, prototypes, condition)
        shift, scale = jnp.split(self.modulation(condition)[:, None, :], 2, axis=-1)
        return self.project_out(_norm(x) * (1 + scale) + shift)
