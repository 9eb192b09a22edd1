"""HVQ-Trans: features are restored from the nearest entries of a hierarchy of codebooks (arXiv 2310.14228).

features -> encoder, all layers kept: the last one's output -> its codebook; each other beside that entry -> a codebook
of its own -> decoder, whose layers attend to the entries, deep ones first
map = length of the difference, and the cost of moving the shallowest features to all entries of their codebook
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import HVQTransConfig
from jaxad.detector import register
from jaxad.detectors._transformer import Layer, TransformerDetector
from jaxad.memory.bank import Reservoir
from jaxad.models.backbone import Backbone
from jaxad.nn.cosine import cosines
from jaxad.nn.dropout import Dropout
from jaxad.types import Array, Batch, Features, Judgement

IMAGES = 16
"""Training images that the codebooks are begun from."""


@register
class HVQTrans(TransformerDetector):
    """Reconstruction from quantized features of every depth; one for many categories.

    Make one with `HVQTrans.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "hvq-trans"
    title: str = "HVQ-Trans"
    config_class: ClassVar[type] = HVQTransConfig

    def __init__(self, config: HVQTransConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        width = config.width
        super().__init__(config, backbone, decoded=2 * width, rngs=rngs)
        self.decoder = nnx.List([Layer(2 * width, config, sources=2, rngs=rngs) for _ in range(config.depth)])
        self.top = Codebook(config.entries, width, rngs=rngs)
        # Like the decoder's layers, deep ones first.
        self.codebooks = nnx.List([Codebook(config.entries, 2 * width, rngs=rngs) for _ in range(config.depth)])

    def prepare(self, features: Iterable[Features]) -> None:
        """Channel statistics, and the first entries of the codebooks: what the encoder makes of some training images.

        Entries that lie far from all features would never be taken, and so never move.
        """
        images = Reservoir(IMAGES, seed=0)

        def passing() -> Iterator[Features]:
            for batch in features:
                images.add(np.asarray(batch.tokens, np.float32).reshape(len(batch.tokens), -1))
                yield batch

        stream = passing()
        super().prepare(stream)
        for _ in stream:  # What the statistics have left.
            pass
        x = self._standardize(images.patches().reshape(-1, self.grid[0] * self.grid[1], self.channels))
        for level, codebook in enumerate((self.top, *self.codebooks)):
            z = self.quantize(x)[1][level]
            z = z.reshape(-1, z.shape[-1])
            entries = len(codebook.vectors[...])
            chosen = np.random.default_rng(level).choice(len(z), entries, replace=len(z) < entries)
            first: Any = np.asarray(z)[chosen]
            codebook.vectors.set_value(first)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean squared error of the features, and what features and codebook entries are apart."""
        x = self._standardize(features.tokens)
        drop = Dropout(self.config.dropout, key)
        quantized, inputs, entries = self.quantize(x, drop)
        error = jnp.square(self.restore(quantized, drop) - x).mean()
        fixed = jax.lax.stop_gradient
        apart = [jnp.square(z - fixed(entry)).mean() for z, entry in zip(inputs, entries, strict=True)]
        chased = [jnp.square(fixed(z) - entry).mean() for z, entry in zip(inputs, entries, strict=True)]
        commitment, codebook = jnp.stack(apart).sum(), jnp.stack(chased).sum()
        terms: dict[str, Array] = {"error": error, "commitment": commitment, "codebook": codebook}
        return error + self.config.commitment * commitment + codebook, terms

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """Length of the difference of every patch and its reconstruction, and transport, on the token grid."""
        x = self._standardize(features.tokens)
        quantized, inputs, _ = self.quantize(x)
        cost = self.codebooks[-1].transport(inputs[-1]) if self.config.transport else 0.0
        return self._judged(x, self.restore(quantized), self.config.transport * cost)

    def quantize(
        self, x: jax.Array, drop: Dropout | None = None
    ) -> tuple[list[jax.Array], list[jax.Array], list[jax.Array]]:
        """Standardized tokens [b n c] in the words of the codebooks.

        Args:
            x: the tokens.
            drop: dropout of training; None for none, as in inference.

        Returns:
            Three lists: entries [b n 2d] for each layer of the decoder, through which gradients pass as if nothing had
            been quantized; what was quantized, the last encoder layer's output first; and the entries taken for these.
        """
        positions, drop = self._positions(), drop or Dropout(0.0, None)
        outputs = [self._projected(x)]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1], outputs[-1:], positions, drop))
        top = outputs.pop()
        inputs, entries, quantized = [top], [self.top.nearest(top)], []
        upper = _passing(top, entries[0])
        for output, codebook in zip(outputs[::-1], self.codebooks, strict=True):
            inputs.append(jnp.concatenate([output, upper], axis=-1))
            entries.append(codebook.nearest(inputs[-1]))
            quantized.append(_passing(inputs[-1], entries[-1]))
        return quantized, inputs, entries

    def restore(self, quantized: list[jax.Array], drop: Dropout | None = None) -> jax.Array:
        """Standardized tokens [b n c] as the decoder makes them of the entries."""
        positions, drop = jnp.concatenate([self._positions()] * 2, axis=-1), drop or Dropout(0.0, None)
        x = quantized[0]
        for layer, memory in zip(self.decoder, quantized, strict=True):
            x = layer(x, [x, memory], positions, drop)
        return self.project_out(self.norm(x))


class Codebook(nnx.Module):
    """Vectors that stand for all features."""

    def __init__(self, entries: int, width: int, *, rngs: nnx.Rngs):
        self.vectors = nnx.Param(jax.random.normal(rngs.params(), (entries, width)))

    def nearest(self, z: jax.Array) -> jax.Array:
        """The entry next to each feature of z [b n d]: [b n d]."""
        vectors = jnp.asarray(self.vectors[...])
        distance = jnp.square(vectors).sum(-1)[None, None] - 2 * self._products(z)
        return vectors[distance.argmin(-1)]

    def transport(self, z: jax.Array) -> jax.Array:
        """Mean of 1 - cosine from each feature of z [b n d] to all entries, weighted by how likely they are: [b n]."""
        cost = 1 - cosines(z, self.vectors[...])
        return (cost * jax.nn.softmax(self._products(z) / len(self.vectors[...]), axis=-1)).sum(-1)

    def _products(self, z: jax.Array) -> jax.Array:
        return jnp.matmul(z, self.vectors[...].T, precision="highest")


def _passing(z: jax.Array, entry: jax.Array) -> jax.Array:
    """The entry, whose gradient goes to z."""
    return z + jax.lax.stop_gradient(entry - z)
