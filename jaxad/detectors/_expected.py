"""What retrieved normal patches make of residuals: beside those of the nearest one, less those that are expected."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxad.config.retrieved_patches import RetrievedPatches
from jaxad.diffusion.retrieval import Known, RetrievalDenoiser
from jaxad.metrics import protocol
from jaxad.types import Array

SCORE = protocol("exact-256")
"""The way from an excess of residuals to an image score, whatever the protocol."""


def beside_nearest(
    config: RetrievedPatches,
    residuals: Array,
    least: Callable[[Array], Array],
    denoiser: RetrievalDenoiser | None,
    known: Known | None,
) -> jax.Array:
    """Residuals [b n] or, where the settings say so, their geometric mean with the least that a retrieved patch leaves.

    Args:
        config: says which.
        residuals: of reconstructions, 0 or more.
        least: the least residual of the tokens [b n], given standardized patches [b k c].
        denoiser: that retrieved them; None where none does.
        known: what it retrieved; None for nothing, which leaves the residuals as they are.
    """
    if not config.nearest or known is None or denoiser is None:
        return jnp.asarray(residuals)
    return jnp.sqrt(jnp.maximum(jnp.asarray(residuals), 0.0) * least(denoiser.standardized(known)))


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
