"""The linear denoiser: the Wiener filter of normal features in place of a diffusion network. No training.

A diffusion model on frozen features is worth what it adds to this. It differs from DPDiff-AD in the denoiser alone: in
directions that vary much among normal patches a token is kept, in all others it is drawn to the mean.
"""

from __future__ import annotations

from typing import ClassVar, Self

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import LinearConfig
from jaxad.detector import PatchDetector, Remembers, register
from jaxad.diffusion.samplers import normal_per_image
from jaxad.diffusion.schedule import add_noise, linear_schedule
from jaxad.diffusion.wiener import WienerFilter
from jaxad.errors import ConfigError, DataError
from jaxad.features import FeatureCache, Progress, features_of
from jaxad.memory.cosine import cosine
from jaxad.memory.moments import moments
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Batch, Explanation, Features, Judgement, Source


@register
class LinearDenoiser(PatchDetector, Remembers):
    """Distance of every patch to its linear reconstruction from noise; one for all categories.

    Make one with `LinearDenoiser.create(config)`, give it normal images with `remember(source)`.
    """

    name: ClassVar[str] = "linear"
    title: str = "Linear denoiser"
    config_class: ClassVar[type] = LinearConfig

    def __init__(self, config: LinearConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        c = self.channels
        self.channel_mean = Statistic(jnp.zeros(c, jnp.float32))
        self.channel_std = Statistic(jnp.ones(c, jnp.float32))
        self.filter = WienerFilter(c)

    def remember(
        self, source: Source, *, features: FeatureCache | None = None, progress: Progress | None = None
    ) -> Self:
        """Takes mean and covariance of the patches of normal images, in one pass and a fixed amount of memory.

        Args:
            source: the images.
            features: of all of them, where they are computed already.
            progress: called after every batch.

        Raises:
            DataError: the source holds no images.
        """
        if not len(source):
            raise DataError(f"{source.name}: no normal images to remember")
        self.learn_names(source)
        stream = features_of(self, source, features, progress)
        _, mean, covariance = moments(
            (batch.tokens.reshape(-1, 1, self.channels) for batch in stream), 1, self.channels
        )
        covariance = np.asarray(covariance[0], np.float64)
        std = np.sqrt(np.diag(covariance)) + 1e-6
        self.filter.fit(np.zeros_like(std), covariance / np.outer(std, std))
        self.channel_mean[...] = mean[0]
        self.channel_std[...] = jnp.asarray(std, jnp.float32)
        return self

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Residual of every patch on the token grid, as DPDiff-AD measures it."""
        chex.assert_shape(
            features.tokens, (None, None, self.channels), custom_message="features.tokens must be [b n c]"
        )
        if not self.categories:
            raise ConfigError("linear knows no features: call `remember` with normal images before it judges others")
        mean, std = self.channel_mean[...][None, None], self.channel_std[...][None, None]
        x = (jnp.asarray(features.tokens, jnp.float32) - mean) / std
        reconstruction = self.reconstruct(x, keys)
        if self.config.residual == "squared":
            residual = jnp.square(reconstruction - x).sum(-1)
        else:
            residual = 1 - cosine(reconstruction * std + mean, x * std + mean)
        before, after = (tokens.reshape(len(x), *features.grid, -1) for tokens in (x, reconstruction))
        return Judgement(residual.reshape(-1, *features.grid), explanation=Explanation(before, after))

    def reconstruct(self, x: Array, keys: Array) -> jax.Array:
        """Standardized tokens [b n c], noised to `start_timestep`, as the linear denoiser restores them: [b n c].

        Args:
            x: the tokens.
            keys: PRNG keys [b], which no noise is drawn from where its mean is taken.
        """
        t = self.config.start_timestep
        alpha_bar = jnp.float32(linear_schedule().alpha_bar[t])
        if self.config.noise == "expected":
            return self.filter(jnp.sqrt(alpha_bar) * x, alpha_bar)

        def one_draw(total, draw):
            noise = normal_per_image(jax.vmap(jax.random.fold_in, (0, None))(keys, draw), x.shape[1:])
            return total + add_noise(x, noise, alpha_bar), None

        noisy, _ = jax.lax.scan(one_draw, jnp.zeros_like(x), jnp.arange(self.config.draws))
        return self.filter(noisy / self.config.draws, alpha_bar)
