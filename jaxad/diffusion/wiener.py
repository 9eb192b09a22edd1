"""The best linear denoiser of vectors with known mean and covariance, the Wiener filter.

x0 ~ N(m, C) and x_t = sqrt(abar) x0 + sqrt(1 - abar) eps make the best linear guess of x0

    x0^ = m + sqrt(abar) C (abar C + (1 - abar) I)^-1 (x_t - sqrt(abar) m)

In directions that vary much x_t is kept, in all others it is drawn to the mean.
"""

from __future__ import annotations

from typing import Literal

import chex
import jax
import jax.numpy as jnp

from jaxad.diffusion.covariance import Covariance
from jaxad.nn.variables import Statistic
from jaxad.types import Array


class WienerFilter(Covariance):
    """The filter in the eigenvectors of C, where it is one gain for each: two products of width c at any t.

    Until it is fitted, m is 0 and C the identity.

    Args:
        channels: width c of the vectors.
    """

    def __init__(self, channels: int):
        super().__init__(channels)
        self.mean = Statistic(jnp.zeros(channels, jnp.float32))

    def fit(self, mean: Array, covariance: Array) -> None:
        """Takes mean [c] and covariance [c c] of the vectors."""
        self.mean[...] = jnp.asarray(mean, jnp.float32)
        self.set_covariance(covariance)

    def __call__(self, x_t: Array, alpha_bar: Array, target: Literal["x0", "epsilon", "v"] = "x0") -> jax.Array:
        """The best linear guess of the clean vectors, or the noise or velocity that it implies: float32 [b n c].

        Args:
            x_t: noisy vectors [b n c].
            alpha_bar: of their noise level, [b] or a scalar.
            target: what is guessed.
        """
        chex.assert_shape(x_t, (None, None, self.mean.shape[0]), custom_message="x_t must be [b n c]")
        alpha_bar = jnp.asarray(alpha_bar, jnp.float32).reshape(-1, 1, 1)
        signal, noise = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
        mean, variances = self.mean[...][None, None], self.variances[...][None, None]
        gain, offset = {
            "x0": (signal * variances, mean),
            "epsilon": (noise, jnp.zeros_like(mean)),
            "v": (signal * noise * (1 - variances), -noise * mean),
        }[target]
        coordinates = self.rotate(x_t - signal * mean)
        return offset + self.unrotate(coordinates * (gain / (alpha_bar * variances + 1 - alpha_bar)))
