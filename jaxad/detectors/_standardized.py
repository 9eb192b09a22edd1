"""What detectors have in common that restore features by their squared error: channels scaled alike, positions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.detector import PatchDetector, Trainable
from jaxad.memory.moments import moments
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Features


class StandardizedDetector(PatchDetector, Trainable):
    """A detector on features whose channels have mean 0 and variance 1, unless its config says otherwise. Abstract.

    Attributes:
        channel_mean, channel_std: of the training patches, [c].
        rows, columns: learned positions, half of `config.width` channels each.
    """

    def __init__(self, config: Any, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        self.channel_mean = Statistic(jnp.zeros(self.channels, jnp.float32))
        self.channel_std = Statistic(jnp.ones(self.channels, jnp.float32))
        rows, columns = self.grid
        self.rows = nnx.Param(jax.random.uniform(rngs.params(), (rows, config.width // 2)))
        self.columns = nnx.Param(jax.random.uniform(rngs.params(), (columns, config.width // 2)))

    def prepare(self, features: Iterable[Features]) -> None:
        """Channel mean and standard deviation over the training tokens."""
        if self.config.standardize == "none":
            return
        stream = (batch.tokens.reshape(-1, 1, self.channels) for batch in features)
        _, mean, covariance = moments(stream, 1, self.channels)
        self.channel_mean[...] = mean[0]
        self.channel_std[...] = jnp.sqrt(jnp.diagonal(covariance[0])) + 1e-6

    def _positions(self) -> jax.Array:
        """[1 n d]: half of the channels say the column, half the row."""
        (rows, columns), half = self.grid, self.config.width // 2
        parts = jnp.broadcast_to(self.columns[...][None], (rows, columns, half)), self.rows[...][:, None]
        positions = jnp.concatenate([parts[0], jnp.broadcast_to(parts[1], (rows, columns, half))], -1)
        return positions.reshape(1, rows * columns, -1)

    def _standardize(self, tokens: Array) -> jax.Array:
        mean, std = self.channel_mean[...][None, None], self.channel_std[...][None, None]
        return (jnp.asarray(tokens, jnp.float32) - mean) / std
