"""RD4AD: a student restores a teacher's features, deep ones first, from a compact embedding (arXiv 2201.10703).

blocks of a frozen ViT, side by side -> one-class embedding of half the rows and columns -> student: deepest block, ...,
shallowest block                                                                                       map = 1 - cosine
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import RD4ADConfig
from jaxad.detector import register
from jaxad.detectors._cosine import CosineDetector
from jaxad.models.backbone import Backbone
from jaxad.nn.precision import Conv, Linear, compute_dtype
from jaxad.types import Features

Step = Literal["same", "half", "double"]
"""What a block does to the numbers of rows and columns."""

_INITIALIZER = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


@register
class RD4AD(CosineDetector):
    """Reverse distillation on blocks of a ViT; one for many categories.

    Make one with `RD4AD.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "rd4ad"
    title: str = "RD4AD"
    config_class: ClassVar[type] = RD4ADConfig

    def __init__(self, config: RD4ADConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        width, options = self.channels, {"dtype": compute_dtype(config.precision), "rngs": rngs}
        wide, count = 2 * width, len(self.blocks)
        first = Block(count * width, wide, "half", **options)
        self.embedding = nnx.List([first, *(Block(wide, wide, **options) for _ in range(1, config.embedding_depth))])
        stages = []
        for number, depth in enumerate(config.depths):
            first = Block(width, width, **options) if number else Block(wide, width, "double", **options)
            stages.append(nnx.List([first, *(Block(width, width, **options) for _ in range(1, depth))]))
        self.student = nnx.List(stages)

    def misfits(self) -> list[str]:
        """Those of all, `depths` for other blocks, and what cannot be halved."""
        config, problems = self.config, super().misfits()
        if len(self.blocks) != len(config.depths):
            problems.append(f"depths = {config.depths}: must be as many as the blocks {self.blocks}")
        if any(side % 2 for side in self.grid):
            made = f"must make an even number of rows and columns, not {self.grid}"
            problems.append(f"image_size = {config.image_size}: {made}")
        if self.channels % 2:
            problems.append(f"backbone = {config.backbone}: its width {self.channels} must be even")
        return problems

    def restore(self, features: Features) -> list[jax.Array]:
        """The patches of each block as the student makes them, shallow ones first: [b n c] each.

        Args:
            features: what `encode` gave.
        """
        x = jnp.asarray(features.tokens, jnp.float32).reshape(len(features.tokens), *features.grid, -1)
        x, outputs = _run(self.embedding, x), []
        for stage in self.student:
            x = _run(stage, nnx.relu(x))
            outputs.append(x.reshape(len(x), -1, self.channels))
        return outputs[::-1]


class Block(nnx.Module):
    """A bottleneck block of a wide ResNet without its last ReLU, [b h w i] -> [b h' w' o].

    Its norms are over the channels of each place, so that they need no statistics of batches.

    Args:
        inputs, outputs: channels; those between are half the outputs.
        step: whether rows and columns stay as many, are halved, or doubled.
    """

    def __init__(self, inputs: int, outputs: int, step: Step = "same", *, dtype: Any, rngs: nnx.Rngs):
        inner, options = outputs // 2, {"dtype": dtype, "rngs": rngs}
        self.conv1, self.conv3 = _conv(inputs, inner, 1, **options), _conv(inner, outputs, 1, **options)
        self.conv2 = _changing(inner, inner, 3, step, **options)
        changes = step != "same" or inputs != outputs
        self.shortcut = _changing(inputs, outputs, 1, step, **options) if changes else None
        self.norm1, self.norm2 = (nnx.LayerNorm(inner, epsilon=1e-5, rngs=rngs) for _ in range(2))
        self.norm3 = nnx.LayerNorm(outputs, epsilon=1e-5, rngs=rngs)
        self.norm = nnx.LayerNorm(outputs, epsilon=1e-5, rngs=rngs) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = nnx.relu(self.norm1(self.conv1(x).astype(jnp.float32)))
        y = nnx.relu(self.norm2(self.conv2(y).astype(jnp.float32)))
        y = self.norm3(self.conv3(y).astype(jnp.float32))
        if self.shortcut and self.norm:
            x = self.norm(self.shortcut(x).astype(jnp.float32))
        return x + y


class Doubling(nnx.Module):
    """Transposed convolution of 2 x 2 with stride 2: each place becomes four, [b h w i] -> [b 2h 2w o]."""

    def __init__(self, inputs: int, outputs: int, *, dtype: Any, rngs: nnx.Rngs):
        self.linear = Linear(inputs, 4 * outputs, use_bias=False, kernel_init=_INITIALIZER, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, _ = x.shape
        y = self.linear(x).reshape(b, h, w, 2, 2, -1)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, -1)


def _run(blocks: Iterable[Block], x: jax.Array) -> jax.Array:
    """The blocks one after the other, the last ReLU left out: features of a ViT have either sign."""
    for number, block in enumerate(blocks):
        x = block(nnx.relu(x) if number else x)
    return x


def _changing(n_in: int, n_out: int, side: int, step: Step, **options: Any) -> Conv | Doubling:
    """A convolution of that side, a transposed one to double rows and columns."""
    if step == "double":
        return Doubling(n_in, n_out, **options)
    return _conv(n_in, n_out, side, 2 if step == "half" else 1, **options)


def _conv(n_in: int, n_out: int, side: int, stride: int = 1, *, dtype: Any, rngs: nnx.Rngs) -> Conv:
    options = {"kernel_init": _INITIALIZER, "dtype": dtype, "rngs": rngs}
    return Conv(n_in, n_out, (side, side), strides=stride, padding=side // 2, use_bias=False, **options)
