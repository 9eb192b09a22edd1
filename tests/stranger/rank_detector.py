"""A detector as somebody else would write it: a linear autoencoder of patch features."""

from dataclasses import dataclass
from typing import ClassVar

import jax.numpy as jnp
from flax import nnx

from jaxad import Judgement, PatchDetector, Trainable, register
from jaxad.config import Blocks, Config, Precision


@dataclass(frozen=True)
class RankConfig(Config):
    """Settings of the linear autoencoder."""

    backbone: str = "embedded"
    """Frozen features."""
    blocks: Blocks = None
    """Blocks that are averaged."""
    image_size: int = 224
    """Side in pixels of the square input."""
    rank: int = 4
    """Width of the bottleneck."""
    precision: Precision = "auto"
    """Compute type."""

    PRESETS: ClassVar = {"paper": {}, "narrow": {"rank": 2}}


@register
class Rank(PatchDetector, Trainable):
    """Distance of every patch to what a linear bottleneck makes of it."""

    name = "rank"
    title = "Linear autoencoder"
    config_class = RankConfig

    def __init__(self, config, backbone=None, *, rngs):
        super().__init__(config, backbone)
        self.down = nnx.Linear(self.channels, config.rank, rngs=rngs)
        self.up = nnx.Linear(config.rank, self.channels, rngs=rngs)

    def loss(self, features, key):
        return self._residual(features).mean(), {}

    def judge(self, features, batch, keys):
        return Judgement(self._residual(features).sum(-1).reshape(-1, *features.grid))

    def _residual(self, features):
        x = jnp.asarray(features.tokens, jnp.float32)
        return jnp.square(self.up(self.down(x)) - x)
