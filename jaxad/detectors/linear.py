"""The linear denoiser: the Wiener filter of normal features in place of a diffusion network. No training.

A diffusion model on frozen features is worth what it adds to this. It differs from DPDiff-AD in the denoiser alone: in
directions that vary much among normal patches a token is kept, in all others it is drawn to the mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import LinearConfig
from jaxad.detector import register
from jaxad.detectors._remembering import RememberingDetector
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.diffusion.samplers import normal_per_image
from jaxad.diffusion.schedule import add_noise, linear_schedule
from jaxad.diffusion.wiener import WienerFilter
from jaxad.models.backbone import Backbone
from jaxad.types import Array, Batch, Explanation, Features, Judgement, Source


@register
class LinearDenoiser(StandardizedDetector, RememberingDetector):
    """Distance of every patch to its linear reconstruction from noise; one for all categories.

    Make one with `LinearDenoiser.create(config)`, give it normal images with `remember(source)`.
    """

    name: ClassVar[str] = "linear"
    title: str = "Linear denoiser"
    config_class: ClassVar[type] = LinearConfig

    def __init__(self, config: LinearConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        self.filter = WienerFilter(self.channels)

    def _learn(self, stream: Iterator[Features], source: Source) -> None:
        """Mean and covariance of the patches, in a fixed amount of memory."""
        self.filter.fit(np.zeros(self.channels), self._measure_correlations(stream))

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Residual of every patch on the token grid, as DPDiff-AD measures it."""
        x = self._standardize(self._tokens(features))
        reconstruction = self.reconstruct(x, keys)
        residual = self._residual(x, reconstruction)
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
