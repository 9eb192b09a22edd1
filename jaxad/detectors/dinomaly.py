"""Dinomaly: a decoder that cannot focus restores frozen features, except where they are anomalous (arXiv 2405.14325).

image -> frozen ViT: mean of its shallow blocks, mean of its deep ones -> mean of both -> bottleneck with dropout ->
decoder: mean of its last blocks, shallow ones restored; mean of its first, deep ones restored        map = 1 - cosine
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import DinomalyConfig
from jaxad.detector import register
from jaxad.detectors._cosine import GroupDetector
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import group_means
from jaxad.nn.activations import gelu
from jaxad.nn.cosine import cosine
from jaxad.nn.dropout import Dropout
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Features


@register
class Dinomaly(GroupDetector):
    """Reconstruction of grouped features by a noisy bottleneck and linear attention; one for many categories.

    Make one with `Dinomaly.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "dinomaly"
    title: str = "Dinomaly"
    config_class: ClassVar[type] = DinomalyConfig
    leading: ClassVar[bool] = True

    def __init__(self, config: DinomalyConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        dtype, hidden = compute_dtype(config.precision), round(self.channels * config.mlp_ratio)
        self.bottleneck = Bottleneck(self.channels, hidden, config.dropout, dtype=dtype, rngs=rngs)
        self.decoder = nnx.List(
            [DecoderBlock(self.channels, self.heads, hidden, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        )

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """The loss after `easy_steps` steps."""
        return self.loss_at(features, key, jnp.int32(self.config.easy_steps))

    def loss_at(self, features: Features, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        """Mean over groups and images of 1 - cosine of all of an image's features at once; easy points pull less."""
        config = self.config
        share = config.easy_share * jnp.minimum(step / config.easy_steps, 1)
        pairs = zip(self.split(features), self.restore(features, key), strict=True)
        restored = [with_easy_gradient(*pair, share, config.easy_gradient) for pair in pairs]
        return self._compared(self.split(features), restored)

    def restore(self, features: Features, key: Array | None = None) -> list[jax.Array]:
        """Each group's patches as the decoder makes them: g times [b n c].

        Args:
            features: what `encode` gave.
            key: of the dropout; None for none, as in inference.
        """
        leading = jnp.asarray(features.extras["leading"], jnp.float32)
        patches = jnp.stack(self.split(features)).mean(0)
        x = jnp.concatenate([jnp.stack(jnp.split(leading, self.config.groups, axis=-1)).mean(0), patches], axis=1)
        x, outputs = self.bottleneck(x, key), []
        for block in self.decoder:
            x = block(x)
            outputs.append(x[:, leading.shape[1] :])
        return group_means(outputs[::-1], self.config.groups)


class Bottleneck(nnx.Module):
    """Feed-forward layer with dropout before, between and after its two linear layers, [b n c] -> [b n c]."""

    def __init__(self, width: int, hidden: int, dropout: float, *, dtype, rngs: nnx.Rngs):
        self.rate = dropout
        self.fc1 = _linear(width, hidden, dtype, rngs)
        self.fc2 = _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array, key: Array | None = None) -> jax.Array:
        drop = Dropout(self.rate, key)
        x = gelu(self.fc1(drop(x)))
        return drop(self.fc2(drop(x)))


class DecoderBlock(nnx.Module):
    """Pre-norm transformer block with linear attention, [b n c] -> [b n c]."""

    def __init__(self, width: int, heads: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-8, rngs=rngs) for _ in range(2))
        self.qkv = _linear(width, 3 * width, dtype, rngs)
        self.out = _linear(width, width, dtype, rngs)
        self.fc1 = _linear(width, hidden, dtype, rngs)
        self.fc2 = _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        x = x + self.out(linear_attention(q, k, v, self.heads))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


def linear_attention(query: Array, key: Array, value: Array, heads: int) -> jax.Array:
    """Attention with weights f(q) f(k), f = elu + 1, in place of a softmax: [b n c] each, in float32 (Eq. 5).

    It cannot attend to one token alone, and its cost grows with n, not with its square.
    """
    q, k, v = (jnp.asarray(x, jnp.float32).reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    q, k = nnx.elu(q) + 1, nnx.elu(k) + 1
    product = partial(jnp.einsum, precision="highest")
    mixed = product("bnhd,bhde->bnhe", q, product("bnhd,bnhe->bhde", k, v))
    total = product("bnhd,bhd->bnh", q, k.sum(1))
    # Where all features of a query round to 0, so does its mixture.
    return (mixed / jnp.maximum(total, 1e-12)[..., None]).reshape(query.shape)


def with_easy_gradient(target: Array, found: jax.Array, share: Array | float, factor: float) -> jax.Array:
    """`found` itself; its gradient is multiplied by `factor` at the `share` of points that are nearest to `target`.

    Args:
        target, found: [b n c]; the nearest are found among all points of the batch, by the cosine.
        share: of points, 0 to 1.
        factor: of their gradient.
    """
    fixed = jax.lax.stop_gradient(found)
    distance = 1 - cosine(target, fixed)
    hard = jnp.clip(jnp.floor(distance.size * (1 - share)).astype(jnp.int32), 1, distance.size)
    least = jnp.sort(distance.reshape(-1))[distance.size - hard]
    return fixed + jnp.where(distance < least, factor, 1.0)[..., None] * (found - fixed)


def _linear(n_in: int, n_out: int, dtype, rngs: nnx.Rngs) -> Linear:
    kernel_init = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)
    return Linear(n_in, n_out, kernel_init=kernel_init, dtype=dtype, rngs=rngs)
