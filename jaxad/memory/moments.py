"""Means and covariances of a stream of arrays, in memory that does not grow with it."""

from __future__ import annotations

from collections.abc import Iterable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.types import Array


@jax.jit
def _merged(mean: jax.Array, covariance: jax.Array, x: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean [g d] and covariance [g d d] after a further batch x [m g d], which is `share` of all that was seen."""
    center = x.mean(0)
    centered = x - center[None]
    if x.shape[-1] == 1:  # Variances alone, for which a product of matrices takes far longer.
        own = jnp.square(centered).mean(0)[..., None]
    else:
        own = jnp.einsum("mgd,mge->gde", centered, centered, precision="highest") / len(x)
    delta = center - mean
    between = share * (1 - share) * delta[:, :, None] * delta[:, None, :]
    return mean + share * delta, (1 - share) * covariance + share * own + between


def moments(stream: Iterable[Array], groups: int, width: int) -> tuple[int, jax.Array, jax.Array]:
    """Mean and covariance of vectors that come in batches, each group of them by itself.

    Batches are merged as Chan et al. do (1979), in float32 about their own means, so that neither large means nor many
    batches cost digits.

    Args:
        stream: arrays [m g d], m vectors of every group; m may differ from array to array.
        groups: their number g.
        width: d of a vector.

    Returns:
        The number of vectors in each group, their mean float32 [g d], and their covariance float32 [g d d] as the mean
        of products; all zeros where there are none.
    """
    seen, mean = 0, jnp.zeros((groups, width), jnp.float32)
    covariance = jnp.zeros((groups, width, width), jnp.float32)
    for batch in stream:
        x = jnp.asarray(batch, jnp.float32)
        chex.assert_shape(x, (None, groups, width), custom_message=f"the stream must be of [m {groups} {width}]")
        if not len(x):
            continue
        seen += len(x)
        mean, covariance = _merged(mean, covariance, x, jnp.float32(len(x) / seen))
    return seen, mean, covariance


def channel_scales(stream: Iterable[Array], channels: int) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each channel of features that come in batches.

    Args:
        stream: arrays [... c], of which all axes but the last count features.
        channels: their number c.

    Returns:
        float32 [c] each, deviations with 1e-6 added, so that constant channels can be divided by them.
    """
    _, mean, variance = moments((jnp.reshape(x, (-1, channels, 1)) for x in stream), channels, 1)
    return mean[:, 0], jnp.sqrt(variance[:, 0, 0]) + 1e-6


def channel_correlations(stream: Iterable[Array], channels: int) -> tuple[jax.Array, jax.Array, np.ndarray]:
    """Statistics of channels over all tokens, in one pass.

    Args:
        stream: features [... c].
        channels: their number c.

    Returns:
        Mean float32 [c], standard deviation float32 [c] and 1e-6, by which channels are divided; and the covariance of
        what was so divided, float64 [c c].
    """
    _, mean, covariance = moments((jnp.reshape(x, (-1, 1, channels)) for x in stream), 1, channels)
    wide = np.asarray(covariance[0], np.float64)
    std = np.sqrt(np.diag(wide)) + 1e-6
    return mean[0], jnp.asarray(std, jnp.float32), wide / np.outer(std, std)
