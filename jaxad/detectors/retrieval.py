"""The denoiser by retrieval: patches of similar normal images in place of a diffusion network. No training.

A memory bank's nearest patch and a linear denoiser are its extremes. It differs from DPDiff-AD with that
preconditioning in the network alone, so a trained one is worth what it adds to this.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import RetrievalConfig
from jaxad.detector import register
from jaxad.detectors._remembering import RememberingDetector
from jaxad.detectors._standardized import StandardizedDetector
from jaxad.diffusion.clusters import ClusterDenoiser
from jaxad.diffusion.retrieval import RetrievalDenoiser, Sample
from jaxad.diffusion.schedule import linear_schedule
from jaxad.memory.cosine import cosine
from jaxad.metrics import protocol
from jaxad.models.backbone import Backbone
from jaxad.nn.precision import compute_dtype
from jaxad.types import Array, Batch, Explanation, Features, Judgement, Source

LEAST = 1e-6
"""Residuals below this are rounding."""
SAMPLE = 40_000
"""Remembered patches that clusters are found in."""
SEEN = 150
"""Timestep whose noise hides patches of one cluster from each other."""
NOISIEST = 399
"""Timestep whose noise decides which normal patches are alike: the last one that DPDiff-AD's preset "small" visits."""
SCORE = protocol("exact-256")
"""The way from an excess of residuals to an image score, whatever the protocol."""


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
        self.denoiser = RetrievalDenoiser(self.channels, config.retrieved, dtype=dtype)
        self.clusters = ClusterDenoiser(self.channels, config.clusters) if config.clusters else None

    def _learn(self, stream: Iterator[Features], source: Source) -> None:
        """Patches of every image, and what the others leave of them."""
        sample = Sample(self.config.memory)
        self._measure(sample.passing(stream))
        self.denoiser.fit(sample, self._standardize)
        if self.clusters is not None:
            noise = 1 / self._alpha_bar(SEEN) - 1
            rows = np.asarray(self.denoiser.patches[...]).reshape(-1, self.channels)
            chosen = np.random.default_rng(0).permutation(len(rows))[:SAMPLE]
            self.clusters.fit(np.asarray(self.denoiser.unrotate(rows[chosen])), noise)
        if self.config.image_score == "excess":
            self.denoiser.learn_own_residuals(self._alpha_bar(self.config.start_timestep), self._residual)

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Residual of every patch on the token grid, as DPDiff-AD measures it."""
        tokens = jnp.asarray(self._tokens(features), jnp.float32)
        x, alpha_bar = self._standardize(tokens), jnp.float32(self._alpha_bar(self.config.start_timestep))
        known = self.denoiser.retrieve(self._standardize(tokens.mean(1, keepdims=True))[:, 0])
        reconstruction = self.denoiser(jnp.sqrt(alpha_bar) * x, alpha_bar, known)
        maps = self._residual(x, reconstruction).reshape(-1, *features.grid)
        scores = None
        if known is not None and known.residuals is not None:
            expected = self.denoiser.expected_residual(x, self._alpha_bar(NOISIEST), known)
            scores = SCORE.postprocess(maps - expected.reshape(maps.shape))[1]
        if self.clusters is not None:
            typical = self._residual(x, self.clusters(jnp.sqrt(alpha_bar) * x, alpha_bar)).reshape(maps.shape)
            # Of two residuals of unlike sizes the geometric mean needs no weights.
            maps = jnp.sqrt(jnp.maximum(maps, LEAST) * jnp.maximum(typical, LEAST))
        before, after = (patches.reshape(len(x), *features.grid, -1) for patches in (x, reconstruction))
        return Judgement(maps, scores, Explanation(before, after))

    def _alpha_bar(self, t: int) -> float:
        return float(linear_schedule().alpha_bar[t])

    def _residual(self, x: Array, reconstruction: Array) -> jax.Array:
        if self.config.residual == "squared":
            return jnp.square(reconstruction - x).sum(-1)
        return 1 - cosine(self._unstandardize(reconstruction), self._unstandardize(x))
