"""SimpleNet: a discriminator tells normal features from the same ones with noise (arXiv 2303.15140).

features -> mean of each neighborhood -> linear adaptor -> (with noise or without) -> discriminator    map = -score
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import SimpleNetConfig
from jaxad.detector import PatchDetector, Trainable, register
from jaxad.memory.moments import moments
from jaxad.models.backbone import Backbone
from jaxad.nn.precision import Linear
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Batch, Features, Judgement

EPSILON = 1e-5
"""Added to variances by the norm."""


@register
class SimpleNet(PatchDetector, Trainable):
    """Discrimination of adapted features from noisy ones; one for many categories.

    Make one with `SimpleNet.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "simplenet"
    title: str = "SimpleNet"
    config_class: ClassVar[type] = SimpleNetConfig

    def __init__(self, config: SimpleNetConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        width = self.channels
        self.channel_mean = Statistic(jnp.zeros(width, jnp.float32))
        self.channel_covariance = Statistic(jnp.eye(width, dtype=jnp.float32))
        # Without biases, which the norm of the discriminator takes away; in float32, for little noise.
        self.adaptor = _linear(width, width, rngs)
        self.discriminator = Discriminator(width, config.hidden, rngs=rngs)

    def prepare(self, features: Iterable[Features]) -> None:
        """Mean and covariance of the averaged features over the training patches."""
        stream = (self._averaged(batch).reshape(-1, 1, self.channels) for batch in features)
        _, mean, covariance = moments(stream, 1, self.channels)
        self.channel_mean[...], self.channel_covariance[...] = mean[0], covariance[0]

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """By how much normal features miss the margin on one side, and noisy ones on the other."""
        x = self.adaptor(self._averaged(features) / self._scale())
        noisy = x + self.config.noise * jax.random.normal(key, x.shape)
        hidden = self.discriminator.hidden(jnp.concatenate([x, noisy]))
        scores = self.discriminator.score(hidden, hidden.mean((0, 1)), hidden.var((0, 1)))
        normal, anomalous = jnp.split(scores, 2)
        misses = [nnx.relu(self.config.margin - score).mean() for score in (normal, -anomalous)]
        return misses[0] + misses[1], {"normal": misses[0], "anomalous": misses[1]}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """How little each patch looks like a normal one to the discriminator, on the token grid."""
        hidden = self.discriminator.hidden(self.adaptor(self._averaged(features) / self._scale()))
        return Judgement(-self.discriminator.score(hidden, *self.expected()).reshape(-1, *features.grid))

    def expected(self) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the hidden layer over the training patches, half of them with noise: [d] each.

        All before it is linear, so that they follow from those of the patches, whatever the weights are by then.
        """
        scale, last = self._scale().reshape(-1, 1), self.discriminator.hidden.kernel[...]
        first = self.adaptor.kernel[...] / scale
        kernel = jnp.matmul(first, last, precision="highest")
        spread = jnp.matmul(self.channel_covariance[...], kernel, precision="highest")
        noise = self.config.noise**2 * jnp.square(last).sum(0) / 2
        return jnp.matmul(self.channel_mean[...], kernel, precision="highest"), (kernel * spread).sum(0) + noise

    def _averaged(self, features: Features) -> jax.Array:
        """Tokens as the means of their neighborhoods within the image: [b n c]."""
        tokens, side = jnp.asarray(features.tokens, jnp.float32), self.config.neighborhood
        wanted = (None, features.grid[0] * features.grid[1], self.channels)
        chex.assert_shape(tokens, wanted, custom_message="features.tokens must be [b n c]")
        maps = tokens.reshape(len(tokens), *features.grid, -1)
        return nnx.avg_pool(maps, (side, side), padding="SAME", count_include_pad=False).reshape(tokens.shape)

    def _scale(self) -> jax.Array:
        """What channels are divided by, [1 1 c]."""
        variance = jnp.diagonal(self.channel_covariance[...])
        scale = jnp.ones_like(variance) if self.config.standardize == "none" else jnp.sqrt(variance) + 1e-6
        return scale[None, None]


class Discriminator(nnx.Module):
    """Two linear layers with a batch norm and a leaky ReLU between them; its scores are high for normal features."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        self.hidden = _linear(width, hidden, rngs)
        self.scale = nnx.Param(jnp.ones(hidden, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(hidden, jnp.float32))
        self.tail = _linear(hidden, 1, rngs)

    def score(self, hidden: jax.Array, mean: jax.Array, variance: jax.Array) -> jax.Array:
        """Outputs of `hidden` [b n d] and their mean and variance [d] -> scores [b n]."""
        gain = (self.scale[...] * jax.lax.rsqrt(variance + EPSILON))[None, None]
        normed = (hidden - mean[None, None]) * gain + self.bias[...][None, None]
        return self.tail(nnx.leaky_relu(normed, 0.2))[..., 0]


def _linear(n_in: int, n_out: int, rngs: nnx.Rngs) -> Linear:
    return Linear(n_in, n_out, use_bias=False, kernel_init=nnx.initializers.xavier_normal(), rngs=rngs)
