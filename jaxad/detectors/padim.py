"""PaDiM: a multivariate Gaussian of normal features at every place of the image (arXiv 2011.08785)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import PaDiMConfig
from jaxad.detector import register
from jaxad.detectors._remembering import RememberingDetector
from jaxad.errors import TrainingError
from jaxad.memory.moments import moments
from jaxad.models.backbone import Backbone
from jaxad.nn.variables import Statistic
from jaxad.types import Array, Batch, Features, Judgement, Source


@register
class PaDiM(RememberingDetector):
    """Mahalanobis distance of every patch to the normal ones at its place, of all categories together.

    Make one with `PaDiM.create(config)`, give it normal images with `remember(source)`.
    """

    name: ClassVar[str] = "padim"
    title: str = "PaDiM"
    config_class: ClassVar[type] = PaDiMConfig

    def __init__(self, config: PaDiMConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        places, self.width = math.prod(self.grid), min(config.dimensions, self.channels)
        chosen = np.random.default_rng(config.seed).permutation(self.channels)[: self.width]
        self.chosen = Statistic(jnp.asarray(np.sort(chosen), jnp.int32))
        self.mean = Statistic(jnp.zeros((places, self.width), jnp.float32))
        self.whitening = Statistic(jnp.zeros((places, self.width, self.width), jnp.float32))

    def _learn(self, stream: Iterator[Features], source: Source) -> None:
        """Fits the Gaussians, in memory that does not grow with the number of images (Eq. 1).

        Raises:
            TrainingError: `regularization` is too small for covariances to be inverted.
        """
        chosen = np.asarray(self.chosen[...])
        seen, mean, covariance = moments(
            (batch.tokens[:, :, chosen] for batch in stream), math.prod(self.grid), self.width
        )
        self.mean[...] = mean
        whitening = _whitening(covariance * (seen / max(seen - 1, 1)), self.config.regularization)
        if not jnp.isfinite(whitening).all():
            raise TrainingError(
                f"regularization = {self.config.regularization}: too small for float32 beside these features"
            )
        self.whitening[...] = whitening

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Mahalanobis distance of every patch on the token grid (Eq. 2)."""
        x = jnp.asarray(self._tokens(features), jnp.float32)[:, :, self.chosen[...]] - self.mean[...][None]
        distance = jnp.linalg.norm(jnp.einsum("nde,bne->bnd", self.whitening[...], x, precision="highest"), axis=-1)
        return Judgement(distance.reshape(-1, *features.grid))


@jax.jit
def _whitening(covariance: jax.Array, regularization: float) -> jax.Array:
    """W [n d d] with |W x|^2 = x^T (covariance [n d d] + regularization I)^-1 x; place by place, to spare memory."""
    identity = jnp.eye(covariance.shape[-1])

    def of_place(matrix: jax.Array) -> jax.Array:
        factor = jnp.linalg.cholesky(matrix + regularization * identity)
        return jax.scipy.linalg.solve_triangular(factor, identity, lower=True)

    return jax.lax.map(of_place, covariance)
