"""The denoiser by retrieval: patches of similar normal images in place of a diffusion network. No training.

A memory bank's nearest patch and a linear denoiser are its extremes. It differs from DPDiff-AD with that
preconditioning in the network alone, so a trained one is worth what it adds to this.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import RetrievalConfig
from jaxad.detector import register
from jaxad.detectors._expected import beside_nearest, beyond_expected
from jaxad.detectors._remembering import RememberingDetector
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.diffusion.retrieval import Known, RetrievalDenoiser, Sample
from jaxad.diffusion.schedule import linear_schedule
from jaxad.models.backbone import Backbone
from jaxad.nn.precision import compute_dtype
from jaxad.types import Array, Batch, Explanation, Features, Judgement, Source

NOISIEST = 399
"""Timestep whose noise decides which normal patches are alike: the last one that DPDiff-AD's preset "small" visits."""


@register
class RetrievalDetector(StandardizedDetector, RememberingDetector):
    """Distance of every patch to what patches of similar normal images make of it; one memory for all categories.

    Make one with `RetrievalDetector.create(config)`, give it normal images with `remember(source)`.
    """

    name: ClassVar[str] = "retrieval"
    title: str = "Retrieval denoiser"
    config_class: ClassVar[type] = RetrievalConfig

    def __init__(self, config: RetrievalConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        dtype = compute_dtype(config.precision)
        self.denoiser = RetrievalDenoiser(self.channels, config.retrieved, config.groups, dtype=dtype)

    def _learn(self, stream: Iterator[Features], source: Source) -> None:
        """Patches of every image, and what the others leave of them."""
        sample = Sample(self.config.memory)
        self._measure(sample.passing(stream))
        self.denoiser.fit(sample, self._standardize)
        if self.config.expects:
            self.denoiser.learn_own_residuals(self._alpha_bar(self.config.start_timestep), self._residual_of)

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Residual of every patch on the token grid, as DPDiff-AD measures it, less what is expected of it."""
        tokens = jnp.asarray(self._tokens(features), jnp.float32)
        x, alpha_bar = self._standardize(tokens), jnp.float32(self._alpha_bar(self.config.start_timestep))
        known = self.denoiser.retrieve(self._center(tokens))
        reconstruction = self.denoiser(jnp.sqrt(alpha_bar) * x, alpha_bar, known)
        residuals = self._residual_of(x, reconstruction, known).reshape(-1, *features.grid)
        noisiest = self._alpha_bar(NOISIEST)
        maps, scores = beyond_expected(self.config, self.denoiser, x, residuals, noisiest, known)
        before, after = (patches.reshape(len(x), *features.grid, -1) for patches in (x, reconstruction))
        return Judgement(maps, scores, Explanation(before, after))

    def _residual_of(self, x: Array, reconstruction: Array, known: Known | None) -> jax.Array:
        """Residuals [b n] of standardized tokens [b n c], that of the nearest patch taken into account if wanted."""
        residuals = self._residual(x, reconstruction)
        return beside_nearest(self.config, residuals, partial(self._least_residual, x), self.denoiser, known)

    def _alpha_bar(self, t: int) -> float:
        return float(linear_schedule().alpha_bar[t])
