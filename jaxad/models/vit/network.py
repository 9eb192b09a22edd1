"""Vision Transformer: DINOv2 with and without registers, DINO, supervised ViT.

Sources: arXiv 2304.07193, 2309.16588, 2104.14294, 2010.11929.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Sequence
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.vit.checkpoints import UNUSED, recognize
from jaxad.models.vit.config import ViTConfig
from jaxad.models.weights.key_map import fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.positions import Interpolation, patch_grid, resize_positions
from jaxad.nn.precision import Linear
from jaxad.types import Array


class ViT(nnx.Module):
    """Vision Transformer.

    Args:
        config: its shape.
        dtype: compute type; parameters are float32, softmax and layer norms run in float32.
    """

    def __init__(self, config: ViTConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02, jnp.float32)
        side = config.image_size // config.patch
        self.config = config
        self.patch_embed = PatchEmbed(config, dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, config.width)))
        self.positions = nnx.Param(normal(rngs.params(), (1, 1 + side * side, config.width)))
        registers = (1, config.registers, config.width)
        self.registers = nnx.Param(normal(rngs.params(), registers)) if config.registers else None
        self.blocks = nnx.List([Block(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)])
        self.norm = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)

    def __call__(self, images: Array, taps: Collection[int] = ()) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The whole network.

        Args:
            images: normalized images, float [b h w 3], h and w multiples of the patch.
            taps: numbers of the blocks, counted from 0, whose outputs are wanted too.

        Returns:
            Tokens after the final norm [b 1+r+n c], in the order class, registers, patches; and the raw output of each
            block in `taps` by its number, of the same shape.
        """
        last = len(self.blocks) - 1
        tapped = self.taps(images, {*taps, last})
        return self.norm(tapped[last]), {block: tapped[block] for block in taps}

    def taps(self, images: Array, blocks: Collection[int]) -> dict[int, jax.Array]:
        """Raw outputs [b 1+r+n c] of `blocks` for `images` [b h w 3]; blocks above the deepest of them do not run."""
        if not blocks or not set(blocks) <= set(range(len(self.blocks))):
            raise ConfigError(f"blocks = {sorted(blocks)}: needs one or more of 0 to {len(self.blocks) - 1}")
        x, tapped = self.embed(images), {}
        for index in range(max(blocks) + 1):
            x = self.blocks[index](x)
            if index in blocks:
                tapped[index] = x
        return tapped

    def features(self, images: Array, blocks: Collection[int]) -> jax.Array:
        """Patch tokens after `blocks`, without final norm, their mean over the blocks: float32 [b n c]."""
        tokens = [self.patches(tap).astype(jnp.float32) for tap in self.taps(images, blocks).values()]
        return functools.reduce(jnp.add, tokens) / len(tokens)

    def grouped(self, images: Array, blocks: Sequence[int], groups: int) -> jax.Array:
        """All tokens after `blocks`, without final norm, means over groups of them side by side.

        Args:
            images: normalized images [b h w 3].
            blocks: their numbers; consecutive ones make a group.
            groups: their number, which divides that of the blocks.

        Returns:
            float32 [b 1+r+n groups*c].
        """
        taps = self.taps(images, blocks)
        return jnp.concatenate(group_means([taps[block].astype(jnp.float32) for block in blocks], groups), axis=-1)

    def features_width(self, blocks: Collection[int]) -> int:
        """Channels c of the features of `blocks`."""
        return self.config.width

    def usual_blocks(self, part: Literal["middle"] | None = None) -> tuple[int, ...]:
        """Numbers of the blocks from half the depth on, or of those of its middle third."""
        first = self.depth // 3 if part else self.depth // 2
        last = max(2 * self.depth // 3, first + 1) if part else self.depth
        return tuple(range(first, last))

    def maps(self, images: Array, stages: Collection[int] | None = None) -> list[jax.Array]:
        """What the whole network says of `images` [b h w 3]: its patches after the final norm, float32 [b h' w' c].

        Raises:
            ConfigError: `stages` are given, which a Vision Transformer does not have.
        """
        if stages is not None:
            raise ConfigError(f"stages = {sorted(stages)}: a Vision Transformer has none; leave them out")
        patches = self.patches(self(images)[0]).astype(jnp.float32)
        return [patches.reshape(len(images), *self.grid((images.shape[1], images.shape[2])), -1)]

    def embed(self, images: Array) -> jax.Array:
        """Input tokens [b 1+r+n c] of `images` [b h w 3]; registers have no position."""
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        grid = self.grid((images.shape[1], images.shape[2]))
        patches = self.patch_embed(images)
        cls_position, positions = jnp.split(self.positions[...], [1], axis=1)
        positions = resize_positions(positions, grid, self.config.interpolation)
        leading = self.cls_token[...] + cls_position
        if self.registers is not None:
            leading = jnp.concatenate([leading, self.registers[...]], axis=1)
        leading = jnp.broadcast_to(leading, (len(images), *leading.shape[1:]))
        return jnp.concatenate([leading.astype(patches.dtype), patches + positions.astype(patches.dtype)], axis=1)

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return self.config.depth

    @property
    def patch(self) -> int:
        """Pixels of the image per feature."""
        return self.config.patch

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns (h, w) of the patches of an image of `size` (height, width) in pixels.

        Raises:
            ConfigError: a side that is no multiple of the patch.
        """
        return patch_grid(size, self.patch)

    def patches(self, tokens: jax.Array) -> jax.Array:
        """Patch tokens [b n c] of all tokens [b 1+r+n c]."""
        return tokens[:, 1 + self.config.registers :]


def group_means(arrays: Sequence[jax.Array], groups: int) -> list[jax.Array]:
    """The means of so many consecutive groups of arrays, all of one size."""
    size = len(arrays) // groups
    return [jnp.stack(arrays[start : start + size]).mean(0) for start in range(0, len(arrays), size)]


class PatchEmbed(nnx.Module):
    """Linear projection of each patch; a reshape and one product, which is what a convolution without overlap is."""

    ROUNDED = ("kernel",)

    def __init__(self, config: ViTConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.patch = config.patch
        self.dtype = dtype
        shape = (config.patch, config.patch, 3, config.width)
        self.kernel = nnx.Param(
            nnx.initializers.lecun_normal(in_axis=(0, 1, 2), dtype=jnp.float32)(rngs.params(), shape)
        )
        self.bias = nnx.Param(jnp.zeros(config.width, jnp.float32))

    def __call__(self, images: Array) -> jax.Array:
        b, height, width, _ = images.shape
        p = self.patch
        x = jnp.asarray(images, self.dtype).reshape(b, height // p, p, width // p, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * 3)
        kernel = self.kernel[...].reshape(p * p * 3, -1).astype(self.dtype)
        return x @ kernel + self.bias[...].astype(self.dtype).reshape(1, 1, -1)


class Block(nnx.Module):
    """Pre-norm transformer block: x + ls1(attention(norm1(x))), then x + ls2(mlp(norm2(x)))."""

    def __init__(self, config: ViTConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.norm1 = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.scale1 = LayerScale(config.width) if config.layer_scale else None
        self.norm2 = nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
        self.mlp = (SwiGLU if config.swiglu else MLP)(config, dtype=dtype, rngs=rngs)
        self.scale2 = LayerScale(config.width) if config.layer_scale else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.attention(self.norm1(x))
        x = x + (self.scale1(y) if self.scale1 else y)
        y = self.mlp(self.norm2(x))
        return x + (self.scale2(y) if self.scale2 else y)


class Attention(nnx.Module):
    """Multi-head self-attention with softmax in float32."""

    def __init__(self, config: ViTConfig, *, dtype: Any, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.query, self.key, self.value = (
            Linear(width, width, use_bias=config.qkv_bias, rounded=True, dtype=dtype, rngs=rngs) for _ in range(3)
        )
        self.out = Linear(width, width, rounded=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(attention(self.query(x), self.key(x), self.value(x), self.heads))


class MLP(nnx.Module):
    """Feed-forward layer with exact GELU."""

    def __init__(self, config: ViTConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.fc1 = Linear(config.width, config.hidden, rounded=True, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(config.hidden, config.width, rounded=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class SwiGLU(nnx.Module):
    """Feed-forward layer silu(a) * b with (a, b) one projection."""

    def __init__(self, config: ViTConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.gate_and_value = Linear(config.width, 2 * config.hidden, rounded=True, dtype=dtype, rngs=rngs)
        self.out = Linear(config.hidden, config.width, rounded=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        gate, value = jnp.split(self.gate_and_value(x), 2, axis=-1)
        return self.out(jax.nn.silu(gate) * value)


class LayerScale(nnx.Module):
    """Learned gain per channel."""

    def __init__(self, width: int):
        self.gain = nnx.Param(jnp.ones(width, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * self.gain[...].astype(x.dtype).reshape(1, 1, -1)


def load_vit(weights: Weights, dtype: Any = jnp.float32, interpolation: Interpolation | None = None) -> ViT:
    """The network that `weights` hold: DINOv2, DINO or supervised ViT in any layout that `recognize` knows.

    Args:
        weights: what `find_weights` found. Without Hugging Face's config.json, as with a file such as
            `dinov2_vitb14_reg4_pretrain.pth`, the shape is read off the tensors, with width / 64 heads.
        dtype: compute type.
        interpolation: how positions are resized, None for the way of the code that the file was made for (`recognize`).

    Raises:
        WeightsError: a config that is no Vision Transformer's, or weights that do not fit it.
    """
    checkpoint = recognize(weights)
    checkpoint.weights.check_blocks(checkpoint.config.depth)
    config = dataclasses.replace(checkpoint.config, interpolation=interpolation or checkpoint.config.interpolation)
    try:
        return fill(abstract_vit(config, dtype), checkpoint.weights, checkpoint.key_map, ignore=UNUSED)
    except WeightsError as error:
        if not checkpoint.contradictions:
            raise
        differences = ", ".join(checkpoint.contradictions)
        raise WeightsError(f"{error}\n  config.json is that of another network: {differences}") from None


def abstract_vit(config: ViTConfig, dtype: Any = jnp.float32) -> ViT:
    """The network's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: ViT(config, dtype=dtype, rngs=rngs))
