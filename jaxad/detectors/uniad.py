"""UniAD: a transformer restores jittered features, each token without sight of its neighborhood (arXiv 2206.03687)."""

from __future__ import annotations

from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import HVQTransConfig, UniADConfig
from jaxad.detector import register
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.errors import ConfigError
from jaxad.models.backbone import Backbone
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Batch, Explanation, Features, Judgement


class Dropout:
    """Sets a share of values to 0, every call others; none at all without a key."""

    def __init__(self, rate: float, key: Array | None):
        self._rate, self._key = rate, key if rate else None

    def __call__(self, x: jax.Array) -> jax.Array:
        if self._key is None:
            return x
        self._key, own = jax.random.split(self._key)
        return jnp.where(jax.random.bernoulli(own, 1 - self._rate, x.shape), x / (1 - self._rate), 0)


@register
class UniAD(StandardizedDetector):
    """Reconstruction with neighbor-masked attention and layer-wise queries; one for many categories.

    Make one with `UniAD.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "uniad"
    title: str = "UniAD"
    config_class: ClassVar[type] = UniADConfig

    def __init__(self, config: UniADConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        seen_by(self.grid, config.neighborhood)
        width, dtype = config.width, compute_dtype(config.precision)
        places = self.grid[0] * self.grid[1]
        self.project_in = _linear(self.channels, width, dtype, rngs)
        self.project_out = _linear(width, self.channels, dtype, rngs)
        layer = {"config": config, "dtype": dtype, "rngs": rngs}
        self.encoder = nnx.List([EncoderLayer(**layer) for _ in range(config.depth)])
        self.decoder = nnx.List([DecoderLayer(places, **layer) for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean squared error of the features restored from jittered ones."""
        x, (jitter, dropout) = self._standardize(features.tokens), jax.random.split(key)
        length = jnp.linalg.norm(x, axis=-1, keepdims=True) / self.channels
        jittered = x + self.config.jitter * length * jax.random.normal(jitter, x.shape)
        return jnp.square(self.restore(jittered, dropout) - x).mean(), {}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Length of the difference of every patch and its reconstruction, on the token grid."""
        x = self._standardize(features.tokens)
        restored = self.restore(x)
        maps = jnp.linalg.norm(restored - x, axis=-1).reshape(-1, *features.grid)
        before, after = (tokens.reshape(*maps.shape, -1) for tokens in (x, restored))
        return Judgement(maps, explanation=Explanation(before, after))

    def restore(self, x: Array, key: Array | None = None) -> jax.Array:
        """Standardized tokens [b n c] as the transformer restores them: [b n c].

        Args:
            x: the tokens.
            key: of the dropout; None for none, as in inference.
        """
        places = self.grid[0] * self.grid[1]
        chex.assert_shape(x, (None, places, self.channels), custom_message=f"x must be [b {places} {self.channels}]")
        drop, seen = Dropout(self.config.dropout, key), seen_by(self.grid, self.config.neighborhood)
        positions = self._positions()
        memory = self.project_in(x)
        for layer in self.encoder:
            memory = layer(memory, positions, seen, drop)
        output = memory
        for layer in self.decoder:
            output = layer(output, memory, positions, seen, drop)
        return self.project_out(self.norm(output))


class Attention(nnx.Module):
    """Multi-head attention that leaves out what `seen` [n n] says; dropout of its weights."""

    def __init__(self, width: int, heads: int, *, dtype, rngs: nnx.Rngs):
        self.heads, self.dtype = heads, dtype
        self.query, self.key, self.value, self.out = (_linear(width, width, dtype, rngs) for _ in range(4))

    def __call__(self, query: Array, key: Array, value: Array, seen: np.ndarray, drop: Dropout) -> jax.Array:
        """query, key, value [b n d], their positions included -> [b n d]."""
        projected = (self.query(query), self.key(key), self.value(value))
        q, k, v = (x.astype(self.dtype).reshape(*x.shape[:2], self.heads, -1) for x in projected)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        weights = drop(jax.nn.softmax(jnp.where(seen[None, None], logits, -jnp.inf), axis=-1))
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), v).reshape(query.shape))


class EncoderLayer(nnx.Module):
    """Post-norm layer of masked self-attention, [b n d] -> [b n d]."""

    def __init__(self, *, config: UniADConfig | HVQTransConfig, dtype, rngs: nnx.Rngs):
        self.attention = Attention(config.width, config.heads, dtype=dtype, rngs=rngs)
        self.feed = FeedForward(config.width, config.hidden, dtype=dtype, rngs=rngs)
        self.norm1, self.norm2 = (nnx.LayerNorm(config.width, epsilon=1e-5, rngs=rngs) for _ in range(2))

    def __call__(self, x: jax.Array, positions: jax.Array, seen: np.ndarray, drop: Dropout) -> jax.Array:
        x_here = x + positions
        x = self.norm1(x + drop(self.attention(x_here, x_here, x, seen, drop)))
        return self.norm2(x + drop(self.feed(x, drop)))


class DecoderLayer(nnx.Module):
    """Post-norm layer whose own learned queries attend to the encoder's output, then to the layer's before."""

    def __init__(self, places: int, *, config: UniADConfig, dtype, rngs: nnx.Rngs):
        self.queries = nnx.Param(jax.random.normal(rngs.params(), (places, config.width)))
        attentions = (Attention(config.width, config.heads, dtype=dtype, rngs=rngs) for _ in range(2))
        self.attention1, self.attention2 = attentions
        self.feed = FeedForward(config.width, config.hidden, dtype=dtype, rngs=rngs)
        norms = (nnx.LayerNorm(config.width, epsilon=1e-5, rngs=rngs) for _ in range(3))
        self.norm1, self.norm2, self.norm3 = norms

    def __call__(
        self, x: jax.Array, memory: jax.Array, positions: jax.Array, seen: np.ndarray, drop: Dropout
    ) -> jax.Array:
        y = jnp.broadcast_to(self.queries[...][None], x.shape)
        y = self.norm1(y + drop(self.attention1(y + positions, memory + positions, memory, seen, drop)))
        y = self.norm2(y + drop(self.attention2(y + positions, x + positions, x, seen, drop)))
        return self.norm3(y + drop(self.feed(y, drop)))


class FeedForward(nnx.Module):
    """Two linear layers with ReLU and dropout between them."""

    def __init__(self, width: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.fc1, self.fc2 = _linear(width, hidden, dtype, rngs), _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> jax.Array:
        return self.fc2(drop(nnx.relu(self.fc1(x))))


def seen_by(grid: tuple[int, int], neighborhood: int) -> np.ndarray:
    """bool [n n]: whether each token sees each other, which it does outside the square of that side around itself.

    Raises:
        ConfigError: some token would see none.
    """
    row, column = (axis.ravel() for axis in np.indices(grid))
    far = np.maximum(np.abs(row[:, None] - row), np.abs(column[:, None] - column))
    seen = far > (neighborhood - 1) // 2
    if not seen.any(1).all():
        raise ConfigError(f"neighborhood = {neighborhood}: hides all of the {grid[0]} x {grid[1]} tokens from one")
    return seen


def _linear(n_in: int, n_out: int, dtype, rngs: nnx.Rngs) -> Linear:
    return Linear(n_in, n_out, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs)
