"""What detectors have in common that see all channels of features on one scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.detector import InputSpec, PatchDetector
from jaxad.memory.moments import channel_correlations, channel_scales
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import ViT
from jaxad.nn.cosine import cosine, cosines
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Batch, Features


class StandardizedDetector(PatchDetector):
    """A detector on features whose channels have mean 0 and variance 1, once they are measured. Abstract.

    Args:
        config, backbone, rngs: as of `PatchDetector`. With `groups` of blocks in its settings, the means of these lie
            side by side in a token.

    Attributes:
        channel_mean, channel_std: of the training patches, [c].
    """

    def __init__(self, config: Any, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        self.channels *= self._groups
        if self._groups > 1:
            self.blocks = tuple(sorted(self.blocks))
        self.channel_mean = Statistic(jnp.zeros(self.channels, jnp.float32))
        self.channel_std = Statistic(jnp.ones(self.channels, jnp.float32))

    @property
    def _groups(self) -> int:
        return getattr(self.config, "groups", 1)

    def misfits(self) -> list[str]:
        """Groups that there are not."""
        groups, problems = self._groups, []
        if groups > 1 and not isinstance(self.backbone.network, ViT):
            problems.append(f"groups = {groups}: backbone = {self.config.backbone} must be a Vision Transformer")
        if len(self.blocks) % groups:
            problems.append(f"blocks = {self.blocks}: their number must be a multiple of groups = {groups}")
        return problems

    @property
    def inputs(self) -> InputSpec:
        spec, groups = super().inputs, self._groups
        return spec if groups == 1 else dataclasses.replace(spec, identity=(spec.identity, "groups", groups))

    def encode(self, batch: Batch) -> Features:
        """The mean of the blocks, or the means of their groups side by side: tokens [b n c]."""
        if self._groups == 1:
            return super().encode(batch)
        network, images = self.backbone.network, self.backbone.normalization(batch.images["image"])
        return Features(network.patches(network.grouped(images, self.blocks, self._groups)), self.grid)

    def _residual(self, x: Array, reconstruction: Array) -> jax.Array:
        """What a reconstruction of standardized tokens [b n c] leaves of each, as `config.residual` says: [b n].

        Squared: sum over channels of the squared difference. Cosine: 1 - cosine of features as the backbone gives them,
        its channels' means and scales put back. Of several groups of blocks the mean of their residuals.
        """
        if self.config.residual == "squared":
            return jnp.square(jnp.asarray(reconstruction) - x).sum(-1) / self._groups
        pair = self._unstandardize(reconstruction), self._unstandardize(x)
        groups = zip(*(jnp.split(tokens, self._groups, axis=-1) for tokens in pair), strict=True)
        return jnp.stack([1 - cosine(*group) for group in groups]).mean(0)

    def _least_residual(self, x: Array, others: Array) -> jax.Array:
        """The least that any of other patches [b k c] leaves of each token [b n c], all standardized: [b n].

        A residual as that of `_residual`; every group of blocks has a nearest patch of its own.
        """
        by_cosine, found = self.config.residual == "cosine", []
        pair = (self._unstandardize(x), self._unstandardize(others)) if by_cosine else (x, others)
        for own, those in zip(*(jnp.split(jnp.asarray(a), self._groups, axis=-1) for a in pair), strict=True):
            if by_cosine:
                found.append(1 - cosines(own, those).max(-1))
            else:
                product = jnp.einsum("bnc,bkc->bnk", own, those, precision="highest")
                far = jnp.square(those).sum(-1)[:, None] - 2 * product
                found.append(jnp.square(own).sum(-1) + far.min(-1))
        # Rounding may leave less than nothing of a patch that is among the others.
        return jnp.maximum(jnp.stack(found).mean(0), 0.0)

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
