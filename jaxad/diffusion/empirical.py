"""The best denoiser of vectors that are drawn about known ones, in closed form.

x0 ~ 1/k sum_j N(m_j, C), one C about all of the m_1 ... m_k, and x_t = sqrt(abar) x0 + sqrt(1 - abar) eps make
the best guess of x0

    x0^ = m + sqrt(abar) C (abar C + (1 - abar) I)^-1 (x_t - sqrt(abar) m)        m = sum_j r_j m_j
    r ~ softmax of log N(x_t; sqrt(abar) m_j, abar C + (1 - abar) I)

With little noise and C = 0 it is the nearest m, as in a memory bank; with one m it is the Wiener filter. Where groups
of channels lie side by side, each has an r of its own.
"""

from __future__ import annotations

from functools import partial

import chex
import jax
import jax.numpy as jnp

from jaxad.diffusion.covariance import Covariance
from jaxad.types import Array


class EmpiricalDenoiser(Covariance):
    """The denoiser in the eigenvectors of C, where C is one variance for each direction.

    Args:
        channels: width c of the vectors.
        groups: how many vectors of equal width lie side by side in one; each is denoised as if there were no other.
        dtype: compute type of the two products with known vectors.
    """

    def __init__(self, channels: int, groups: int = 1, *, dtype=jnp.float32):
        super().__init__(channels, groups)
        self.dtype = dtype

    def guess(self, x_t: Array, alpha_bar: Array | float, known: Array | None) -> jax.Array:
        """The best guess of the clean vectors: float32 [b n c].

        Args:
            x_t: noisy vectors [b n c].
            alpha_bar: of their noise level, [b] or a scalar.
            known: the m of each image, rotated [b k c]; None for one of zeros.
        """
        chex.assert_shape(x_t, (None, None, len(self.variances)), custom_message="x_t must be [b n c]")
        signal, total = self._level(len(x_t), alpha_bar)
        x = self.rotate(x_t)
        mean = jnp.zeros_like(x)
        if known is not None:
            known = jnp.asarray(known, self.dtype)
            weights = (own.astype(self.dtype) for own in self._weights(x, known, signal, total))
            product = partial(jnp.einsum, "bnk,bkc->bnc", preferred_element_type=jnp.float32)
            mean = jnp.concatenate([product(*pair) for pair in zip(weights, self._split(known), strict=True)], -1)
        return self.unrotate(mean + (x - signal * mean) * signal * self.variances[...][None, None] / total)

    def weights(self, x_t: Array, alpha_bar: Array | float, known: Array) -> jax.Array:
        """How likely each of the known vectors [b k c] is what noisy ones [b n c] come from: r, float32 [b n k].

        Of several groups the mean.
        """
        found = self._weights(self.rotate(x_t), jnp.asarray(known, self.dtype), *self._level(len(x_t), alpha_bar))
        return sum(found[1:], start=found[0]) / self.groups

    def _level(self, images: int, alpha_bar: Array | float) -> tuple[jax.Array, jax.Array]:
        """sqrt(abar) [b 1 1], and the variances of the noisy vectors about a known one [b 1 c]."""
        alpha_bar = jnp.broadcast_to(jnp.asarray(alpha_bar, jnp.float32).reshape(-1, 1, 1), (images, 1, 1))
        return jnp.sqrt(alpha_bar), alpha_bar * self.variances[...][None, None] + 1 - alpha_bar

    def _weights(self, x: jax.Array, known: jax.Array, signal: jax.Array, total: jax.Array) -> list[jax.Array]:
        """The softmax of -|x - signal m|^2 / 2 in the metric of the noisy vectors, of each group: [b n k]."""
        product, found = partial(jnp.einsum, preferred_element_type=jnp.float32), []
        for own, means, spread in zip(*map(self._split, (x, known, total)), strict=True):
            far = product("bkc,bc->bk", jnp.square(means.astype(jnp.float32)), (jnp.square(signal) / spread)[:, 0])
            logits = product("bnc,bkc->bnk", (signal * own / spread).astype(self.dtype), means)
            found.append(jax.nn.softmax(logits - far[:, None] / 2, axis=-1))
        return found

    def _split(self, x: jax.Array) -> list[jax.Array]:
        """The groups of vectors [... c]."""
        return jnp.split(x, self.groups, axis=-1)
