"""What detectors have in common that see all channels of features on one scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.detector import PatchDetector
from jaxad.memory.moments import channel_correlations, channel_scales
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Features


class StandardizedDetector(PatchDetector):
    """A detector on features whose channels have mean 0 and variance 1, once they are measured. Abstract.

    Args:
        config, backbone, rngs: as of `PatchDetector`.
        groups: how many features of the backbone's width lie side by side in a token.

    Attributes:
        channel_mean, channel_std: of the training patches, [c].
    """

    def __init__(self, config: Any, backbone: Backbone | None = None, *, groups: int = 1, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        self.channels *= groups
        self.channel_mean = Statistic(jnp.zeros(self.channels, jnp.float32))
        self.channel_std = Statistic(jnp.ones(self.channels, jnp.float32))

    def _measure(self, features: Iterable[Features]) -> None:
        stream = (batch.tokens for batch in features)
        self.channel_mean[...], self.channel_std[...] = channel_scales(stream, self.channels)

    def _measure_correlations(self, features: Iterable[Features]) -> np.ndarray:
        """The same, and the covariance of standardized tokens: float64 [c c]."""
        stream = (batch.tokens for batch in features)
        self.channel_mean[...], self.channel_std[...], found = channel_correlations(stream, self.channels)
        return found

    def _standardize(self, tokens: Array) -> jax.Array:
        mean, std = self.channel_mean[...][None, None], self.channel_std[...][None, None]
        return (jnp.asarray(tokens, jnp.float32) - mean) / std

    def _center(self, tokens: Array) -> jax.Array:
        """The mean token of each image, standardized: [b n c] -> [b c]."""
        return self._standardize(jnp.asarray(tokens, jnp.float32).mean(1, keepdims=True))[:, 0]

    def _unstandardize(self, x: Array) -> jax.Array:
        return jnp.asarray(x) * self.channel_std[...][None, None] + self.channel_mean[...][None, None]
