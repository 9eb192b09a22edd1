"""What is made of residuals where those that are expected, of the remembered normal patches most alike, are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxad.config.retrieved_patches import RetrievedPatches
from jaxad.diffusion.retrieval import Known, RetrievalDenoiser
from jaxad.metrics import protocol
from jaxad.types import Array

SCORE = protocol("exact-256")
"""The way from an excess of residuals to an image score, whatever the protocol."""


def beyond_expected(
    config: RetrievedPatches,
    denoiser: RetrievalDenoiser,
    x: Array,
    residuals: Array,
    alpha_bar: Array | float,
    known: Known | None,
) -> tuple[jax.Array, jax.Array | None]:
    """The anomaly maps [b h w] and image scores [b] of residuals; None for scores that are the protocol's.

    Args:
        config: says what of the expected residuals is taken off.
        denoiser: that remembers normal patches.
        x: clean tokens [b n c].
        residuals: of them, [b h w] of n places.
        alpha_bar: of the noise of `RetrievalDenoiser.expected_residual`, a scalar.
        known: what `RetrievalDenoiser.retrieve` gave for the images. Without residuals of remembered patches the maps
            are the residuals of x.
    """
    maps = jnp.asarray(residuals)
    if not config.expects or known is None or known.residuals is None:
        return maps, None
    expected = denoiser.expected_residual(x, alpha_bar, known).reshape(maps.shape)
    scores = SCORE.postprocess(maps - expected)[1] if config.image_score == "excess" else None
    return maps - config.expected_share * expected, scores
