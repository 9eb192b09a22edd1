"""ViTAD: a plain Vision Transformer restores another's blocks from its last one (arXiv 2312.07495).

image -> frozen ViT: its last block -> linear fusion, positions -> decoder: after each third of it, one of the blocks
restored, the deepest first                                                                            map = 1 - cosine
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import ViTADConfig
from jaxad.detector import register
from jaxad.detectors._cosine import CosineDetector
from jaxad.models.backbone import Backbone
from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Features

_INITIALIZER = nnx.initializers.truncated_normal(0.02)


@register
class ViTAD(CosineDetector):
    """Reconstruction of a ViT's blocks by a ViT of the same width; one for many categories.

    Make one with `ViTAD.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "vitad"
    title: str = "ViTAD"
    config_class: ClassVar[type] = ViTADConfig

    def __init__(self, config: ViTADConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        width, dtype = self.channels, compute_dtype(config.precision)
        self.inputs_only = config.neck
        self.fusion = Linear(len(config.neck) * width, width, dtype=dtype, rngs=rngs)
        places = self.grid[0] * self.grid[1]
        self.positions = nnx.Param(_INITIALIZER(rngs.params(), (places, width), jnp.float32))
        layer: dict[str, Any] = {
            "heads": self.heads,
            "hidden": round(width * config.mlp_ratio),
            "dtype": dtype,
            "rngs": rngs,
        }
        self.decoder = nnx.List([DecoderBlock(width, **layer) for _ in range(config.depth)])

    def misfits(self) -> list[str]:
        """Those of all, blocks of `neck` that there are not, and a `depth` that the blocks do not divide."""
        config, backbone, problems = self.config, self.backbone, super().misfits()
        if max(config.neck) >= backbone.depth:
            problems.append(f"neck = {config.neck}: {backbone.id} has blocks 0 to {backbone.depth - 1}")
        if config.depth % len(self.blocks):
            problems.append(f"depth = {config.depth}: must be a multiple of the number of blocks {self.blocks}")
        return problems

    def restore(self, features: Features) -> list[jax.Array]:
        """The patches of each block as the decoder makes them, shallow ones first: [b n c] each.

        Args:
            features: what `encode` gave.
        """
        seen = self.split(features)[len(self.blocks) :]
        x, outputs = self.fusion(jnp.concatenate(seen, axis=-1)) + self.positions[...][None], []
        for block in self.decoder:
            x = block(x)
            outputs.append(x)
        each = len(outputs) // len(self.blocks)
        return outputs[each - 1 :: each][::-1]


class DecoderBlock(nnx.Module):
    """Pre-norm transformer block, [b n c] -> [b n c]."""

    def __init__(self, width: int, *, heads: int, hidden: int, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-6, rngs=rngs) for _ in range(2))
        options = {"kernel_init": _INITIALIZER, "dtype": dtype, "rngs": rngs}
        self.qkv = Linear(width, 3 * width, rounded=True, **options)
        self.out = Linear(width, width, **options)
        self.fc1, self.fc2 = Linear(width, hidden, **options), Linear(hidden, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        x = x + self.out(attention(q, k, v, self.heads))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))
