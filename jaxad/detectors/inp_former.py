"""INP-Former: normal prototypes drawn from the image itself restore its features (arXiv 2503.02424).

image -> frozen ViT: means of groups of blocks -> mean of these -> prototypes, by attention of few learned tokens
                                                                -> bottleneck -> decoder that mixes prototypes alone:
mean of its last blocks, shallow ones restored; mean of its first, deep ones restored                   map = 1 - cosine
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import INPFormerConfig
from jaxad.detector import register
from jaxad.detectors._cosine import GroupDetector
from jaxad.memory.prototypes import PrototypeExtractor, cosine_similarity, local_loss
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import group_means
from jaxad.nn.activations import gelu
from jaxad.nn.cosine import cosine, cosines
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Batch, Features, Judgement

_INITIALIZER = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)


@register
class INPFormer(GroupDetector):
    """Reconstruction of grouped features from prototypes of the same image; one for many categories.

    Make one with `INPFormer.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "inp-former"
    title: str = "INP-Former"
    config_class: ClassVar[type] = INPFormerConfig

    def __init__(self, config: INPFormerConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        width, heads, hidden = self.channels, self.heads, round(self.channels * config.mlp_ratio)
        options: dict[str, Any] = {"dtype": compute_dtype(config.precision), "rngs": rngs}
        self.extractor = PrototypeExtractor(
            config.prototypes,
            width,
            heads=heads,
            mlp_ratio=config.mlp_ratio,
            epsilon=1e-8,
            query_scale=1.0,
            kernel_init=_INITIALIZER,
            **options,
        )
        self.bottleneck = FeedForward(width, hidden, **options)
        self.decoder = nnx.List([DecoderBlock(width, heads, hidden, **options) for _ in range(config.depth)])

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean over groups and images of 1 - cosine of all of an image's features at once, hard points pulling more;
        and the distance of patches to their nearest prototype."""
        targets, (x, prototypes) = self.split(features), self.prototypes(features)
        pairs = zip(targets, self.decode(x, prototypes), strict=True)
        loss, terms = self._compared(targets, [with_mining(*pair, self.config.mining) for pair in pairs])
        coherence = local_loss(x, prototypes)
        return loss + self.config.coherence * coherence, {**terms, "coherence": coherence}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """1 - cosine of every patch and its reconstruction, averaged over the groups, on the token grid."""
        x, prototypes = self.prototypes(features)
        judgement = self._judged(features, self.decode(x, prototypes))
        near = jnp.moveaxis(cosine_similarity(x, prototypes), -1, 1).reshape(len(x), -1, *features.grid)
        names = tuple(f"INP {number + 1}" for number in range(self.config.prototypes))
        assert judgement.explanation is not None
        explanation = dataclasses.replace(judgement.explanation, similarity=near, prototypes=names)
        return dataclasses.replace(judgement, explanation=explanation)

    def restore(self, features: Features) -> list[jax.Array]:
        """Each group's patches as the decoder makes them: [b n c] each."""
        return self.decode(*self.prototypes(features))

    def prototypes(self, features: Features) -> tuple[jax.Array, jax.Array]:
        """The mean of the groups' patches [b n c], and the prototypes [b k c] that are drawn from it."""
        x = jnp.stack(self.split(features)).mean(0)
        return x, self.extractor(x)

    def decode(self, x: jax.Array, prototypes: jax.Array) -> list[jax.Array]:
        """Each group's patches as the decoder makes them of features and prototypes: g times [b n c].

        Args:
            x: mean of the groups' features, [b n c].
            prototypes: [b k c].
        """
        x, outputs = self.bottleneck(x), []
        for block in self.decoder:
            x = block(x, prototypes)
            outputs.append(x)
        return group_means(outputs[::-1], self.config.groups)


class FeedForward(nnx.Module):
    """Two linear layers with GELU between them, [b n c] -> [b n c]."""

    def __init__(self, width: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.fc1, self.fc2 = _linear(width, hidden, dtype, rngs), _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class DecoderBlock(nnx.Module):
    """Features [b n c] become mixtures of prototypes [b k c]: no path goes around the attention."""

    def __init__(self, width: int, heads: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-8, rngs=rngs) for _ in range(2))
        self.query, self.out = (_linear(width, width, dtype, rngs) for _ in range(2))
        self.key_value = _linear(width, 2 * width, dtype, rngs)
        self.scale = nnx.Param(jnp.ones(heads, jnp.float32))
        self.feed = FeedForward(width, hidden, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array, prototypes: jax.Array) -> jax.Array:
        key, value = jnp.split(self.key_value(self.norm1(prototypes)), 2, axis=-1)
        x = self.out(rectified_attention(self.query(self.norm1(x)), key, value, self.scale[...]))
        return x + self.feed(self.norm2(x))


def rectified_attention(query: Array, key: Array, value: Array, scale: Array) -> jax.Array:
    """Attention with weights relu(scale x cosine) in place of a softmax, in float32.

    Args:
        query: [b n c].
        key, value: [b k c].
        scale: of each head, [heads].

    Returns:
        [b n c].
    """
    q, k, v = (jnp.asarray(x).reshape(*x.shape[:2], len(scale), -1).swapaxes(1, 2) for x in (query, key, value))
    weights = nnx.relu(cosines(q, k) * scale.reshape(1, -1, 1, 1))
    return jnp.matmul(weights, v, precision="highest").swapaxes(1, 2).reshape(query.shape)


def with_mining(target: Array, found: jax.Array, power: float) -> jax.Array:
    """`found` itself; the gradient of each point is multiplied by its distance over the mean, to a power.

    Args:
        target, found: [b n c]; distances are 1 - cosine, their mean is that of the batch.
        power: 0 leaves the gradient as it is.
    """
    fixed = jax.lax.stop_gradient(found)
    # Rounding leaves distances a little below 0, of which most powers are none.
    distance = jnp.maximum(1 - cosine(target, fixed), 0)
    return fixed + ((distance / jnp.maximum(distance.mean(), 1e-12)) ** power)[..., None] * (found - fixed)


def _linear(n_in: int, n_out: int, dtype: Any, rngs: nnx.Rngs) -> Linear:
    return Linear(n_in, n_out, kernel_init=_INITIALIZER, dtype=dtype, rngs=rngs)
