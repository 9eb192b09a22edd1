"""What UniAD and HVQ-Trans have in common: a post-norm transformer that restores standardized features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config.feature_transformer import FeatureTransformer
from jaxad.detector import Trainable
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.models.backbone import Backbone
from jaxad.nn.attention import attention
from jaxad.nn.dropout import Dropout
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Explanation, Features, Judgement


class TransformerDetector(StandardizedDetector, Trainable):
    """A detector whose transformer restores features, each place by its learned position. Abstract.

    Args:
        config, backbone, rngs: as of `PatchDetector`.
        decoded: width of the decoder, whose layers are not made here.

    Attributes:
        rows, columns: learned positions, half of `config.width` channels each.
    """

    def __init__(self, config: FeatureTransformer, backbone: Backbone | None = None, *, decoded: int, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        dtype, half = compute_dtype(config.precision), config.width // 2
        self.rows, self.columns = (nnx.Param(jax.random.uniform(rngs.params(), (side, half))) for side in self.grid)
        self.project_in = linear(self.channels, config.width, dtype, rngs)
        self.project_out = linear(decoded, self.channels, dtype, rngs)
        self.encoder = nnx.List([Layer(config.width, config, sources=1, rngs=rngs) for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(decoded, epsilon=1e-5, rngs=rngs)

    def prepare(self, features: Iterable[Features]) -> None:
        """Channel mean and standard deviation over the training tokens."""
        if self.config.standardize == "channel":
            self._measure(features)

    def _projected(self, x: Array) -> jax.Array:
        """Standardized tokens [b n c] as the encoder takes them: [b n d]."""
        places = self.grid[0] * self.grid[1]
        chex.assert_shape(x, (None, places, self.channels), custom_message=f"x must be [b {places} {self.channels}]")
        return self.project_in(x)

    def _positions(self) -> jax.Array:
        """[1 n d]: half of the channels say the column, half the row."""
        shape = (*self.grid, self.config.width // 2)
        parts = self.columns[...][None], self.rows[...][:, None]
        positions = jnp.concatenate([jnp.broadcast_to(part, shape) for part in parts], -1)
        return positions.reshape(1, -1, self.config.width)

    def _judged(self, x: jax.Array, restored: jax.Array, more: Array | float = 0.0) -> Judgement:
        """Length of the difference of every patch and its reconstruction, and `more` [b n], on the token grid."""
        maps = (jnp.linalg.norm(restored - x, axis=-1) + more).reshape(-1, *self.grid)
        before, after = (tokens.reshape(*maps.shape, -1) for tokens in (x, restored))
        return Judgement(maps, explanation=Explanation(before, after))


class Layer(nnx.Module):
    """Post-norm layer: attention to one source after the other, then a feed-forward layer, [b n d] -> [b n d].

    Args:
        width: d.
        config: heads, hidden width and compute type.
        sources: how many it attends to.
    """

    def __init__(self, width: int, config: FeatureTransformer, *, sources: int, rngs: nnx.Rngs):
        options: dict[str, Any] = {"dtype": compute_dtype(config.precision), "rngs": rngs}
        self.attentions = nnx.List([Attention(width, config.heads, **options) for _ in range(sources)])
        self.norms = nnx.List([nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs) for _ in range(sources + 1)])
        self.feed = FeedForward(width, config.hidden, **options)

    def __call__(
        self,
        x: jax.Array,
        sources: Sequence[jax.Array],
        positions: jax.Array,
        drop: Dropout,
        seen: np.ndarray | None = None,
    ) -> jax.Array:
        """x [b n d], sources [b n d] each, positions [1 n d] -> [b n d]; `seen` is as `Attention` takes it."""
        *norms, last = self.norms
        for attend, norm, source in zip(self.attentions, norms, sources, strict=True):
            x = norm(x + drop(attend(x + positions, source + positions, source, drop, seen)))
        return last(x + drop(self.feed(x, drop)))


class Attention(nnx.Module):
    """Multi-head attention with dropout of its weights; without, and of all keys, it is `jaxad.nn.attention`."""

    def __init__(self, width: int, heads: int, *, dtype: Any, rngs: nnx.Rngs):
        self.heads, self.dtype = heads, dtype
        self.query, self.key, self.value, self.out = (linear(width, width, dtype, rngs) for _ in range(4))

    def __call__(
        self, query: Array, key: Array, value: Array, drop: Dropout, seen: np.ndarray | None = None
    ) -> jax.Array:
        """query, key, value [b n d], their positions included -> [b n d].

        `seen`, bool [n n], says which keys each query attends to, one at least; None for all.
        """
        projected = (self.query(query), self.key(key), self.value(value))
        q, k, v = (x.astype(self.dtype) for x in projected)
        if seen is None and drop.idle:
            return self.out(attention(q, k, v, self.heads))
        q, k, v = (x.reshape(*x.shape[:2], self.heads, -1) for x in (q, k, v))
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
        if seen is not None:
            logits = jnp.where(seen[None, None], logits, -jnp.inf)
        weights = drop(jax.nn.softmax(logits, axis=-1))
        return self.out(jnp.einsum("bhqk,bkhd->bqhd", weights.astype(self.dtype), v).reshape(query.shape))


class FeedForward(nnx.Module):
    """Two linear layers with ReLU and dropout between them, [b n d] -> [b n d]."""

    def __init__(self, width: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.fc1, self.fc2 = linear(width, hidden, dtype, rngs), linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array, drop: Dropout) -> jax.Array:
        return self.fc2(drop(nnx.relu(self.fc1(x))))


def linear(n_in: int, n_out: int, dtype: Any, rngs: nnx.Rngs) -> Linear:
    """A linear layer with Xavier's uniform kernel."""
    return Linear(n_in, n_out, kernel_init=nnx.initializers.xavier_uniform(), dtype=dtype, rngs=rngs)
