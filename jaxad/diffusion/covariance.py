"""A covariance in its eigenvectors, in which denoisers in closed form are one gain for each direction."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.nn.variables import Statistic
from jaxad.types import Array


class Covariance(nnx.Module):
    """The covariance C of vectors; the identity until it is set.

    Args:
        channels: width c of the vectors.
        groups: how many of equal width lie side by side in a vector; what they have in common is left out of C.
    """

    def __init__(self, channels: int, groups: int = 1):
        self.groups = groups
        self.directions = Statistic(jnp.eye(channels, dtype=jnp.float32))
        self.variances = Statistic(jnp.ones(channels, jnp.float32))

    def set_covariance(self, covariance: Array) -> None:
        """Takes C [c c], in an eigendecomposition for each group, in float64 on the host."""
        covariance = np.asarray(covariance, np.float64)
        variances, directions = np.zeros(len(covariance)), np.zeros_like(covariance)
        for own in np.split(np.arange(len(covariance)), self.groups):
            block = np.ix_(own, own)
            variances[own], directions[block] = np.linalg.eigh(covariance[block])
        self.directions[...] = jnp.asarray(directions, jnp.float32)
        self.variances[...] = jnp.asarray(variances.clip(0), jnp.float32)

    def rotate(self, x: Array) -> jax.Array:
        """Vectors [... c] in the eigenvectors of C."""
        return jnp.matmul(x, self.directions[...], precision="highest")

    def unrotate(self, x: Array) -> jax.Array:
        """Vectors float32 [... c] of which `rotate` makes x [... c]."""
        return jnp.matmul(jnp.asarray(x, jnp.float32), self.directions[...].T, precision="highest")
