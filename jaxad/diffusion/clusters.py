"""The denoiser whose known vectors are the centers of clusters: prototypes of all that is normal."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.diffusion.empirical import EmpiricalDenoiser
from jaxad.nn.variables import Statistic
from jaxad.types import Array

ROUNDS, ASSIGNMENTS = 2, 6
"""How often the covariance within clusters is measured, and how often between that vectors are assigned to centers."""
CHUNK = 4096
"""Vectors compared with all centers at once: bounds memory only."""


class ClusterDenoiser(EmpiricalDenoiser):
    """Denoises by k centers, and by how all clusters spread about theirs.

    Args:
        channels: width c of the vectors.
        clusters: their number k.
    """

    def __init__(self, channels: int, clusters: int):
        super().__init__(channels)
        self.centers = Statistic(jnp.zeros((clusters, channels), jnp.float32))

    def fit(self, vectors: Array, noise: float, seed: int = 0) -> None:
        """Finds clusters of vectors [m c] by k-means in the metric (C + noise I)^-1, with C anew after each round.

        Args:
            vectors: a sample; where it has fewer vectors than there are clusters, some centers repeat.
            noise: variance of the noise through which vectors are told apart: those that it hides from each other need
                no two centers.
            seed: chooses the first centers.
        """
        vectors = np.asarray(vectors, np.float32)
        clusters, channels = self.centers.shape
        chex.assert_shape(vectors, (None, channels), custom_message=f"vectors must be [m {channels}]")
        first = np.random.default_rng(seed).permutation(len(vectors))
        centers = vectors[np.resize(first, clusters)]
        covariance = np.cov(vectors, rowvar=False, bias=True)
        for _ in range(ROUNDS):
            variances, directions = np.linalg.eigh(covariance.astype(np.float64))
            whitening = (directions / np.sqrt(variances.clip(0) + noise)).astype(np.float32)
            white = vectors @ whitening
            for _ in range(ASSIGNMENTS):
                assigned = _nearest(white, centers @ whitening)
                centers = _means(vectors, assigned, centers)
            covariance = np.cov(vectors - centers[assigned], rowvar=False, bias=True)
        self.set_covariance(covariance)
        self.centers[...] = self.rotate(centers)

    def __call__(self, x_t: Array, alpha_bar: Array) -> jax.Array:
        """The best guess of the clean vectors: float32 [b n c]; arguments as of `guess`."""
        return self.guess(x_t, alpha_bar, jnp.broadcast_to(self.centers[...][None], (len(x_t), *self.centers.shape)))


@jax.jit
def _chosen(x: jax.Array, centers: jax.Array) -> jax.Array:
    product = jnp.matmul(x, centers.T, precision="highest")
    return jnp.argmax(product - jnp.square(centers).sum(-1)[None] / 2, axis=-1)


def _nearest(x: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The number of the center [k c] nearest to each vector [m c]: int [m]."""
    return np.concatenate([np.asarray(_chosen(x[i : i + CHUNK], centers)) for i in range(0, len(x), CHUNK)])


def _means(x: np.ndarray, assigned: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The mean [k c] of the vectors of each cluster; that of `before` where there are none."""
    counts = np.bincount(assigned, minlength=len(before))
    present, order = np.flatnonzero(counts), np.argsort(assigned, kind="stable")
    sums = np.add.reduceat(x[order].astype(np.float64), (np.cumsum(counts) - counts)[present])
    means = before.copy()
    means[present] = sums / counts[present, None]
    return means
