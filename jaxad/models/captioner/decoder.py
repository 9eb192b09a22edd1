"""The language models of InternVL: InternLM2, Qwen2 and Llama, with grouped queries and a cache of keys and values.

Texts begin at position 0 of their rows and are filled up behind their ends, so that what fills them up is seen by
nothing before it. Reading, each device has texts of its own and gathers the kernels; writing, where there is one token
of each text, kernels stay where they are and states are sent (`jaxad.nn.rows`). Memories never move.
Sources: arXiv 2403.17297, 2407.10671, 2302.13971.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.models.captioner.config import DecoderConfig
from jaxad.models.captioner.rotary import Turns, turned, turns
from jaxad.nn.activations import softmax
from jaxad.nn.attention import attention
from jaxad.nn.precision import Linear
from jaxad.nn.rows import few_rows, own_rows, shared_rows
from jaxad.types import Array

Memory = tuple[jax.Array, jax.Array]
"""Keys [b k d n] and values [b k n d] of a block, of k key heads at n places: as they are multiplied, or programs would
hold both in another order beside."""


class Decoder(nnx.Module):
    """Decoder of texts.

    Args:
        config: its shape.
        dtype: compute type, which kernels and embeddings have too; residuals, softmax, norms and logits are float32.
    """

    def __init__(self, config: DecoderConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.config, self.dtype = config, dtype
        initial = nnx.initializers.normal(0.02, dtype)
        self.tokens = nnx.Param(initial(rngs.params(), (config.vocabulary, config.width)))
        self.blocks = nnx.List([Block(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)])
        self.norm = _norm(config, rngs)
        self.head = None if config.tied else _linear(config.width, config.vocabulary, dtype, rngs)

    def embed(self, ids: Array) -> jax.Array:
        """Embeddings, float32 [... c], of token ids [...]; NaN for ids that the vocabulary lacks."""
        known = jnp.where(jnp.asarray(ids) < self.config.vocabulary, ids, len(self.tokens[...]))
        return jnp.take(self.tokens[...], known, axis=0, mode="fill", fill_value=jnp.nan).astype(jnp.float32)

    def read(self, x: jax.Array, lengths: Array) -> tuple[jax.Array, list[Memory]]:
        """Reads texts.

        Args:
            x: embeddings [b n c].
            lengths: tokens of each text, int [b].

        Returns:
            States after the final norm, float32 [b n c], and what the blocks remember.
        """
        positions = jnp.broadcast_to(jnp.arange(x.shape[1])[None], x.shape[:2])
        by, memories, x = self._turns(positions, lengths), [], own_rows(x)
        for block in self.blocks:
            # What is remembered is made at once: compilers would else keep the projections of all blocks for it.
            x, memory = jax.lax.optimization_barrier(block.read(x, by))
            memories.append(memory)
        return self.norm(x), memories

    def step(self, ids: Array, places: Array, memories: list[Memory]) -> tuple[jax.Array, list[Memory]]:
        """Reads one token more of each text.

        Args:
            ids: of the tokens, int [b].
            places: their positions, int [b].
            memories: with room for them.

        Returns:
            Logits of the next tokens, float32 [b v], and the memories with these.
        """
        x, by, grown = shared_rows(self.embed(ids)[:, None]), self._turns(places[:, None], places + 1), []
        for block, memory in zip(self.blocks, memories, strict=True):
            x, memory = block.step(x, by, places, memory)
            grown.append(memory)
        return self.logits(self.norm(x)[:, 0]), grown

    def logits(self, states: jax.Array) -> jax.Array:
        """Logits, float32 [b v], of the tokens that follow states [b c]."""
        states = shared_rows(states)
        if self.head is not None:
            return few_rows(self.head, states)[:, : self.config.vocabulary]
        logits = jnp.matmul(states.astype(self.dtype), self.tokens[...].T, preferred_element_type=jnp.float32)
        return shared_rows(logits)[:, : self.config.vocabulary]

    def _turns(self, positions: Array, lengths: Array) -> Turns:
        return turns(self.config.rotary, self.config.head_width, positions, lengths)


class Block(nnx.Module):
    """Pre-norm block: attention, then a feed-forward layer gated by SiLU."""

    def __init__(self, config: DecoderConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.norm1 = _norm(config, rngs)
        self.attention = (FusedAttention if config.fused else Attention)(config, dtype=dtype, rngs=rngs)
        self.norm2 = _norm(config, rngs)
        self.gate, self.value = (_linear(config.width, config.hidden, dtype, rngs, rounded=True) for _ in range(2))
        self.out = _linear(config.hidden, config.width, dtype, rngs)

    def read(self, x: jax.Array, by: Turns) -> tuple[jax.Array, Memory]:
        """[b n c] -> [b n c] and what is remembered."""
        y, memory = self.attention.read(self.norm1(x), by)
        x = x + y
        y = self.norm2(x)
        return x + self.out(jax.nn.silu(self.gate(y)) * self.value(y)), memory

    def step(self, x: jax.Array, by: Turns, places: Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """[b 1 c] -> [b 1 c] and what is remembered."""
        y, memory = self.attention.step(self.norm1(x), by, places, memory)
        x = x + shared_rows(y)
        y = self.norm2(x)
        gate, value = (few_rows(layer, y, layer.dtype) for layer in (self.gate, self.value))
        return x + shared_rows(few_rows(self.out, jax.nn.silu(gate) * value)), memory


class Attention(nnx.Module):
    """Causal self-attention in which several query heads share a key head; softmax in float32."""

    def __init__(self, config: DecoderConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.config = config
        heads, key_heads, d = config.heads, config.key_heads, config.head_width
        self._make_projections(dtype, rngs)
        self.out = _linear(heads * d, config.width, dtype, rngs, bias=config.out_bias)
        self.split = (key_heads, heads // key_heads, d)

    def _make_projections(self, dtype: Any, rngs: nnx.Rngs) -> None:
        config = self.config
        width, d, bias = config.width, config.head_width, config.qkv_bias
        self.query = _linear(width, config.heads * d, dtype, rngs, bias=bias, rounded=True)
        self.key, self.value = (
            _linear(width, config.key_heads * d, dtype, rngs, bias=bias, rounded=True) for _ in range(2)
        )

    def project(self, x: jax.Array, few: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [b n heads d] in the order of their key heads, keys and values [b n k d] of x [b n c]."""
        layers = (self.query, self.key, self.value)
        query, key, value = (y.reshape(*y.shape[:2], -1, self.config.head_width) for y in _products(layers, x, few))
        return query, key, value

    def read(self, x: jax.Array, by: Turns) -> tuple[jax.Array, Memory]:
        """[b n c] -> [b n c], and the keys and values."""
        query, key, value = self.project(x, few=False)
        query, key = turned(query, by), turned(key, by)
        shared = (jnp.repeat(y, self.split[1], axis=2) for y in (key, value))
        flat = [y.reshape(*x.shape[:2], -1) for y in (query, *shared)]
        return self.out(attention(flat[0], flat[1], flat[2], self.config.heads, causal=True)), (
            jnp.transpose(key, (0, 2, 3, 1)),
            value.swapaxes(1, 2),
        )

    def step(self, x: jax.Array, by: Turns, places: Array, memory: Memory) -> tuple[jax.Array, Memory]:
        """[b 1 c] -> [b 1 c], and the memory with these tokens at `places`."""
        query, key, value = self.project(x, few=True)
        rows = jnp.arange(len(x))
        options: dict[str, Any] = {"indices_are_sorted": True, "unique_indices": True}
        keys = memory[0].at[rows, :, :, places].set(turned(key, by)[:, 0], **options)
        values = memory[1].at[rows, :, places].set(value[:, 0], **options)
        grouped = turned(query, by).reshape(len(x), *self.split)
        # Logits are written as the keys are, and widened as the softmax reads them.
        logits = jnp.einsum("bkgd,bkdn->bkgn", grouped, keys, preferred_element_type=keys.dtype)
        scaled = logits.astype(jnp.float32) * self.config.head_width**-0.5
        seen = jnp.arange(keys.shape[3])[None] <= places[:, None]
        weights = softmax(jnp.where(seen[:, None, None], scaled, -jnp.inf), values.dtype)
        mixed = jnp.einsum("bkgn,bknd->bkgd", weights, values, preferred_element_type=jnp.float32)
        return few_rows(self.out, shared_rows(mixed.reshape(len(x), 1, -1))), (keys, values)


class FusedAttention(Attention):
    """The same with one projection, as in InternLM2: of each key head its queries, its keys, its values."""

    def _make_projections(self, dtype: Any, rngs: nnx.Rngs) -> None:
        config = self.config
        outputs = (config.heads + 2 * config.key_heads) * config.head_width
        self.projection = _linear(config.width, outputs, dtype, rngs, bias=config.qkv_bias, rounded=True)

    def project(self, x: jax.Array, few: bool) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [b n heads d] in the order of their key heads, keys and values [b n k d] of x [b n c]."""
        key_heads, group, d = self.split
        y = _products((self.projection,), x, few)[0].reshape(*x.shape[:2], key_heads, group + 2, d)
        return y[..., :group, :].reshape(*x.shape[:2], -1, d), y[..., group, :], y[..., group + 1, :]


def _products(layers: Sequence[Linear], x: jax.Array, few: bool) -> list[jax.Array]:
    """What layers make of x [b n c], in their own type; each device has rows of its own of it."""
    return [own_rows(few_rows(layer, x, layer.dtype)) if few else layer(x) for layer in layers]


def _linear(
    inputs: int, outputs: int, dtype: Any, rngs: nnx.Rngs, *, bias: bool = False, rounded: bool = False
) -> Linear:
    return Linear(inputs, outputs, rounded=rounded, use_bias=bias, dtype=dtype, param_dtype=dtype, rngs=rngs)


def _norm(config: DecoderConfig, rngs: nnx.Rngs) -> nnx.RMSNorm:
    return nnx.RMSNorm(config.width, epsilon=config.norm_eps, dtype=jnp.float32, rngs=rngs)
