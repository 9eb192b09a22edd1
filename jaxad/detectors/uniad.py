"""UniAD: a transformer restores jittered features, each token without sight of its neighborhood (arXiv 2206.03687)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import UniADConfig
from jaxad.detector import register
from jaxad.detectors._transformer import Layer, TransformerDetector
from jaxad.models.backbone import Backbone
from jaxad.nn.dropout import Dropout
from jaxad.types import Array, Batch, Features, Judgement


@register
class UniAD(TransformerDetector):
    """Reconstruction with neighbor-masked attention and layer-wise queries; one for many categories.

    Make one with `UniAD.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "uniad"
    title: str = "UniAD"
    config_class: ClassVar[type] = UniADConfig

    def __init__(self, config: UniADConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, decoded=config.width, rngs=rngs)
        places, depth = self.grid[0] * self.grid[1], range(config.depth)
        self.decoder = nnx.List([Layer(config.width, config, sources=2, rngs=rngs) for _ in depth])
        # Each layer of the decoder begins from queries of its own.
        shape = (places, config.width)
        self.queries = nnx.List([nnx.Param(jax.random.normal(rngs.params(), shape)) for _ in depth])

    def misfits(self) -> list[str]:
        """A `neighborhood` that leaves some token nothing to see."""
        (rows, columns), hidden = self.grid, self.config.neighborhood
        if seen_by(self.grid, hidden).any(1).all():
            return []
        return [f"neighborhood = {hidden}: hides all of the {rows} x {columns} tokens from one"]

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean squared error of the features restored from jittered ones."""
        x, (jitter, dropout) = self._standardize(features.tokens), jax.random.split(key)
        length = jnp.linalg.norm(x, axis=-1, keepdims=True) / self.channels
        jittered = x + self.config.jitter * length * jax.random.normal(jitter, x.shape)
        return jnp.square(self.restore(jittered, dropout) - x).mean(), {}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Length of the difference of every patch and its reconstruction, on the token grid."""
        x = self._standardize(features.tokens)
        return self._judged(x, self.restore(x))

    def restore(self, x: Array, key: Array | None = None) -> jax.Array:
        """Standardized tokens [b n c] as the transformer restores them: [b n c].

        Args:
            x: the tokens.
            key: of the dropout; None for none, as in inference.
        """
        drop, seen = Dropout(self.config.dropout, key), seen_by(self.grid, self.config.neighborhood)
        memory, positions = self._projected(x), self._positions()
        for layer in self.encoder:
            memory = layer(memory, [memory], positions, drop, seen)
        output = memory
        for layer, queries in zip(self.decoder, self.queries, strict=True):
            own = jnp.broadcast_to(queries[...][None], output.shape)
            output = layer(own, [memory, output], positions, drop, seen)
        return self.project_out(self.norm(output))


def seen_by(grid: tuple[int, int], neighborhood: int) -> np.ndarray:
    """bool [n n]: whether each token sees each other, which it does outside the square of that side around itself."""
    row, column = (axis.ravel() for axis in np.indices(grid))
    far = np.maximum(np.abs(row[:, None] - row), np.abs(column[:, None] - column))
    return far > (neighborhood - 1) // 2
