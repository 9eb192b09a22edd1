"""Layers that the denoisers share: timestep and position codes, attention among tokens and to prototypes."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.nn.activations import softmax
from jaxad.nn.attention import attention
from jaxad.nn.precision import Linear, product, rounded
from jaxad.nn.timesteps import timestep_embedding
from jaxad.types import Array


def sincos_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Fixed 2-D sine-cosine positions of an h x w grid, float32 [n width]: half columns, half rows (MAE, DiT)."""
    quarter = width // 4
    frequency = 1e4 ** -(np.arange(quarter) / quarter)
    rows, columns = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequency[None, :] for axis in (columns, rows)]
    parts = [part for angle in angles for part in (np.sin(angle), np.cos(angle))]
    positions = np.concatenate(parts, axis=-1).astype(np.float32)
    return np.pad(positions, ((0, 0), (0, width - positions.shape[-1])))


def positions_of(places: Array | None, grid: tuple[int, int], width: int) -> jax.Array | np.ndarray:
    """`sincos_positions` of the tokens with these numbers int [b n], as [b n width]; of all as [1 n width] for None."""
    positions = sincos_positions(grid, width)
    return positions[None] if places is None else jnp.asarray(positions)[places]


def check_inputs(
    x: Array,
    prototypes: Array | None,
    t: Array,
    *,
    grid: tuple[int, int],
    channels: int,
    places: Array | None = None,
) -> None:
    """Asserts that a denoiser of tokens gets x [b n c], prototypes [b k c] or None, t int [b], or [1] for all.

    Also places int [b n], or None where x must hold the tokens of the whole grid.
    """
    n = grid[0] * grid[1] if places is None else x.shape[1]
    chex.assert_shape(x, (None, n, channels), custom_message=f"x must be [b {n} {channels}] for the grid {grid}")
    if places is not None:
        chex.assert_shape(places, (x.shape[0], n), custom_message="places must be [b n] for x [b n c]")
        chex.assert_type(places, int, custom_message="places must hold integers")
    chex.assert_shape(t, ({1, x.shape[0]},), custom_message="t must be [b] for x [b n c], or [1] for all of them")
    chex.assert_type(t, int, custom_message="t must hold integers")
    if prototypes is not None:
        wanted = (x.shape[0], None, channels)
        chex.assert_shape(prototypes, wanted, custom_message=f"prototypes must be [b k {channels}] for x [b n c]")


def linear(n_in: int, n_out: int, *, dtype, rngs: nnx.Rngs, zero: bool = False, rounded: bool = False) -> Linear:
    """A linear layer as DiT initializes it: Xavier uniform kernel, or zero for the gates and the output; zero bias."""
    kernel_init = nnx.initializers.zeros_init() if zero else nnx.initializers.xavier_uniform()
    return Linear(n_in, n_out, rounded=rounded, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


def plain_norm(x: Array) -> jax.Array:
    """Layer norm without scale and shift, in float32, eps 1e-6."""
    x = jnp.asarray(x, jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


@jax.checkpoint
def modulated(x: Array, shift: Array, scale: Array) -> jax.Array:
    """plain_norm(x) * (1 + scale) + shift, float32 [b n d]; the gradient computes it again, which costs little."""
    return plain_norm(x) * (1 + scale) + shift


@jax.checkpoint
def activated(x: Array) -> jax.Array:
    """GELU by tanh, as DiT has it, computed in float32, of the type of x; the gradient computes it again."""
    x = jnp.asarray(x)
    return nnx.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


class TimestepEmbedder(nnx.Module):
    """Timestep -> vector of `width`: sinusoids, then two linear layers with SiLU between them (DiT)."""

    def __init__(self, width: int, *, dtype, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02)
        self.linear_in = Linear(256, width, kernel_init=normal, dtype=dtype, rngs=rngs)
        self.linear_out = Linear(width, width, kernel_init=normal, dtype=dtype, rngs=rngs)

    def __call__(self, t: Array) -> jax.Array:
        """t int [b] -> float32 [b width]."""
        chex.assert_rank(t, 1, custom_message="t must be [b]")
        return self.linear_out(nnx.silu(self.linear_in(timestep_embedding(t))))


class SelfAttention(nnx.Module):
    """Multi-head attention among tokens.

    Args:
        width, heads: of the attention.
        dtype: compute type.
        zero: whether the output starts at zero.
    """

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs, zero: bool = False):
        self.heads = heads
        self.qkv = linear(width, 3 * width, dtype=dtype, rngs=rngs, rounded=True)
        self.out = linear(width, width, dtype=dtype, rngs=rngs, zero=zero)

    def __call__(self, x: Array) -> jax.Array:
        """x [b n d] -> [b n d]."""
        chex.assert_rank(x, 3, custom_message="x must be [b n d]")
        query, key, value = jnp.split(self.qkv(x), 3, axis=-1)
        return self.out(attention(query, key, value, self.heads))


class PrototypeAttention(nnx.Module):
    """Tokens attend to prototypes; keys and values are linear in the prototypes' layer norm.

    DPDiff-AD's Eq. 16 and 17 show no projections and no modulation of the prototypes by the timestep.

    Args:
        width, heads: of the attention.
        prototype_width: width of the prototypes.
        dtype: compute type.
        zero: whether the output starts at zero.
    """

    def __init__(self, width: int, prototype_width: int, heads: int, *, dtype, rngs: nnx.Rngs, zero: bool = False):
        self.heads = heads
        self.norm = nnx.LayerNorm(prototype_width, epsilon=1e-6, rngs=rngs)
        self.query = linear(width, width, dtype=dtype, rngs=rngs, rounded=True)
        self.key_value = linear(prototype_width, 2 * width, dtype=dtype, rngs=rngs, rounded=True)
        self.out = linear(width, width, dtype=dtype, rngs=rngs, zero=zero)

    def __call__(self, x: Array, prototypes: Array) -> jax.Array:
        """x [b n d], prototypes [b k c] -> [b n d]."""
        chex.assert_rank(x, 3, custom_message="x must be [b n d]")
        chex.assert_rank(prototypes, 3, custom_message="prototypes must be [b k c]")
        key, value = jnp.split(self.key_value(self.norm(prototypes)), 2, axis=-1)
        if prototypes.shape[1] * self.heads < x.shape[-1]:
            return self._to_few(x, key, value)
        return self.out(attention(self.query(x), key, value, self.heads))

    def _to_few(self, x: Array, key: jax.Array, value: jax.Array) -> jax.Array:
        """The same with the projections of queries and output multiplied into the keys and values [b k d] of each head.

        Of k prototypes and h heads, h k vectors take the place of the d of either projection.
        """
        assert self.query.bias is not None
        assert self.out.bias is not None
        b, k, width = key.shape
        dtype, heads = key.dtype, self.heads
        of_query, of_out = (rounded(kernel[...], str(dtype)) for kernel in (self.query.kernel, self.out.kernel))
        key, value = (part.astype(jnp.float32).reshape(b, k, heads, -1) for part in (key, value))
        scaled = key * key.shape[-1] ** -0.5
        keys = jnp.einsum("whd,bkhd->bwhk", of_query.reshape(width, heads, -1), scaled)
        offset = jnp.einsum("hd,bkhd->bhk", self.query.bias[...].reshape(heads, -1), scaled)
        values = jnp.einsum("bkhd,hdw->bhkw", value, of_out.reshape(heads, -1, width))
        keys, values = keys.reshape(b, width, -1), values.reshape(b, -1, width)
        logits = product(x, keys, dtype, dtype).reshape(b, -1, heads, k)
        weights = softmax(logits.astype(jnp.float32) + offset[:, None], dtype).reshape(b, -1, heads * k)
        return product(weights, values, dtype, jnp.float32) + self.out.bias[...].reshape(1, 1, -1)
