"""The best denoiser of an image's patches among the patches of the normal images most like it, in closed form.

With the patches m_1 ... m_k of these images as an empirical distribution, blurred by what patches of one kind differ
in, x0 ~ 1/k sum_j N(m_j, C), and x_t = sqrt(abar) x0 + sqrt(1 - abar) eps make the best guess of x0

    x0^ = m + sqrt(abar) C (abar C + (1 - abar) I)^-1 (x_t - sqrt(abar) m)        m = sum_j r_j m_j
    r ~ softmax of log N(x_t; sqrt(abar) m_j, abar C + (1 - abar) I)

With little noise and C = 0 it is the nearest patch, as in a memory bank; with one patch it is a Wiener filter.
That only similar images are looked at (SPADE, arXiv 2005.02357) makes it cheap to remember many patches, and one memory
serve many categories.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.memory.cosine import unit
from jaxad.nn.variables import Memory, Statistic
from jaxad.types import Array

SAME = 1 - 1e-5
"""Images whose mean patches have a cosine above this are copies of each other."""
SAMPLED = 128
"""Images whose patches are compared with those of others to find C."""


class Known(NamedTuple):
    """What images are compared with.

    Attributes:
        patches: of the images most like each, float16 [b k c], in the eigenvectors of C.
        residuals: what a denoiser leaves of them, float32 [b k]; None where that is not known.
    """

    patches: Array
    residuals: Array | None


class RetrievalDenoiser(nnx.Module):
    """Remembers patches of all training images, and denoises by those of the most similar ones, never by a copy's.

    All is kept in the eigenvectors of C, where C is one variance for each direction. Until it is fitted it takes
    patches for white noise.

    Args:
        channels: width c of the patches.
        patches: most patches in memory, an equal number of every image.
        retrieved: patches k that an image is compared with, those of the images most like it.
        dtype: compute type of the two products with these patches.
    """

    def __init__(self, channels: int, patches: int, retrieved: int, *, dtype=jnp.float32):
        self.limit, self.retrieved, self.dtype = patches, retrieved, dtype
        self.patches, self.descriptors = Memory.empty(), Memory.empty()
        self.places, self.residuals = Memory.empty(), Memory.empty()
        self.directions = Statistic(jnp.eye(channels, dtype=jnp.float32))
        self.variances = Statistic(jnp.ones(channels, jnp.float32))

    def fit(self, stream: Iterable[Array], seed: int = 0) -> None:
        """Remembers images that come in batches [b n c]; `seed` chooses the patches of each that are kept."""
        rng, kept, descriptors, places = np.random.default_rng(seed), [], [], []
        share = None
        for batch in stream:
            x = np.asarray(batch, np.float32)
            descriptors.append(np.asarray(_descriptors(x)))
            share = min(x.shape[1], share or self.limit)
            orders = np.stack([rng.permutation(x.shape[1])[:share] for _ in x])
            kept += [image[order].astype(np.float16) for image, order in zip(x, orders, strict=True)]
            places += [*orders]
            # The first patches of an image are as random as all of them, so fewer can be kept at any time.
            if len(kept) * share > 2 * self.limit:
                share = max(self.limit // len(kept), 1)
                kept = [image[:share].copy() for image in kept]
        share = max(min(self.limit // len(kept), share or 1), 1)
        patches = np.stack([image[:share] for image in kept])
        self.places.set_value(jnp.asarray(np.stack([order[:share] for order in places]), jnp.int32))
        self.descriptors.set_value(jnp.asarray(np.concatenate(descriptors)))
        variances, directions = np.linalg.eigh(self._spread(patches, rng).astype(np.float64))
        self.directions[...] = jnp.asarray(directions, jnp.float32)
        self.variances[...] = jnp.asarray(variances.clip(0), jnp.float32)
        rotation = directions.astype(np.float32)
        for image in patches:
            image[...] = image.astype(np.float32) @ rotation
        self.patches.set_value(jnp.asarray(patches))

    def _spread(self, patches: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Half the mean square difference of a patch and the nearest one of other images: the covariance C [c c]."""
        chosen = rng.permutation(len(patches))[:SAMPLED]
        found = np.asarray(_most_similar(self.descriptors[...][chosen], self.descriptors[...], self._images(patches)))
        total = np.zeros((patches.shape[-1],) * 2)
        for number, others in zip(chosen, found, strict=True):
            x, known = (a.reshape(-1, a.shape[-1]).astype(np.float32) for a in (patches[number], patches[others]))
            difference = x - known[np.asarray(_nearest(x, known))]
            total += difference.T @ difference / len(x)
        return total / len(chosen) / 2

    def _images(self, patches: Array) -> int:
        """Number of images that an image is compared with."""
        images, share = patches.shape[:2]
        return max(min(-(-self.retrieved // share), images - 1), 1)

    def learn_residuals(self, residuals: Array) -> None:
        """Remembers what is left of each patch by a denoiser: [i n] of all patches of the images it was fitted to."""
        self.residuals.set_value(jnp.take_along_axis(jnp.asarray(residuals, jnp.float32), self.places[...], 1))

    def retrieve(self, x: Array) -> Known | None:
        """What images are compared with, given all their clean tokens [b n c]; None before it is fitted."""
        if not self.patches.filled:
            return None
        found = _most_similar(_descriptors(x), self.descriptors[...], self._images(self.patches[...]))
        patches = self.patches[...][found].reshape(len(found), -1, self.patches.shape[-1])
        return Known(patches, self.residuals[...][found].reshape(len(found), -1) if self.residuals.filled else None)

    def expected_residual(self, x: Array, alpha_bar: Array, known: Known) -> jax.Array:
        """What is left of normal patches that noise makes clean ones x [b n c] indistinguishable from: [b n].

        Args:
            x: clean tokens.
            alpha_bar: of that noise, a scalar.
            known: what `retrieve` gave for the images, residuals among it.
        """
        assert known.residuals is not None, "learn_residuals comes first"
        signal = jnp.sqrt(jnp.asarray(alpha_bar, jnp.float32)).reshape(1, 1, 1)
        total = jnp.square(signal) * self.variances[...][None, None] + 1 - jnp.square(signal)
        rotated = jnp.matmul(signal * x, self.directions[...], precision="highest")
        weights = self._weights(rotated, known.patches.astype(self.dtype), signal, total)
        return jnp.einsum("bnk,bk->bn", weights, known.residuals)

    def __call__(self, x_t: Array, alpha_bar: Array, known: Known | None) -> jax.Array:
        """The best guess of the clean tokens: float32 [b n c].

        Args:
            x_t: noisy tokens [b n c].
            alpha_bar: of their noise level, [b] or a scalar.
            known: what `retrieve` gave for the images.
        """
        chex.assert_shape(x_t, (None, None, len(self.variances)), custom_message="x_t must be [b n c]")
        alpha_bar = jnp.broadcast_to(jnp.asarray(alpha_bar, jnp.float32).reshape(-1, 1, 1), (len(x_t), 1, 1))
        signal = jnp.sqrt(alpha_bar)
        rotated = partial(jnp.matmul, precision="highest")
        variances = self.variances[...][None, None]
        total = alpha_bar * variances + 1 - alpha_bar
        x = rotated(x_t, self.directions[...])
        mean = jnp.zeros_like(x) if known is None else self._mean(x, known.patches, signal, total)
        return rotated(mean + (x - signal * mean) * signal * variances / total, self.directions[...].T)

    def _mean(self, x: jax.Array, known: Array, signal: jax.Array, total: jax.Array) -> jax.Array:
        """The mean of known patches [b k c], weighted by how likely each is what noisy ones [b n c] come from."""
        known = jnp.asarray(known, self.dtype)
        weights = self._weights(x, known, signal, total).astype(self.dtype)
        return jnp.einsum("bnk,bkc->bnc", weights, known, preferred_element_type=jnp.float32)

    def _weights(self, x: jax.Array, known: jax.Array, signal: jax.Array, total: jax.Array) -> jax.Array:
        """These weights [b n k]: the softmax of -|x - signal m|^2 / 2 in the metric of the noisy patches."""
        far = jnp.einsum("bkc,bc->bk", jnp.square(known.astype(jnp.float32)), _row(jnp.square(signal) / total, known))
        query = (signal * x / total).astype(self.dtype)
        logits = jnp.einsum("bnc,bkc->bnk", query, known, preferred_element_type=jnp.float32)
        return jax.nn.softmax(logits - far[:, None] / 2, axis=-1)


def _row(precision: jax.Array, known: jax.Array) -> jax.Array:
    """[b 1 c] or [1 1 c] as [b c]."""
    return jnp.broadcast_to(precision[:, 0], (len(known), known.shape[-1]))


@jax.jit
def _descriptors(x: Array) -> jax.Array:
    """What images are compared by, the direction of their mean token: [b n c] -> float32 [b c]."""
    return unit(jnp.asarray(x, jnp.float32).mean(1))


@partial(jax.jit, static_argnums=2)
def _most_similar(descriptors: Array, known: Array, images: int) -> jax.Array:
    """The numbers of so many known images [m c], those most like each image [b c] but no copies: int32 [b images]."""
    cosines = jnp.matmul(descriptors, jnp.asarray(known).T, precision="highest")
    return jax.lax.top_k(jnp.where(cosines > SAME, -2.0, cosines), images)[1]


@jax.jit
def _nearest(x: Array, known: Array) -> jax.Array:
    """The number of the known vector [k c] nearest to each vector [n c]: int32 [n]."""
    product = jnp.matmul(x, jnp.asarray(known).T)
    return jnp.argmax(product - jnp.square(known).sum(-1)[None] / 2, axis=-1)
