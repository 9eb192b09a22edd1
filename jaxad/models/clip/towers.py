"""CLIP: image and text towers of OpenAI and OpenCLIP, and the text towers of Stable Diffusion (arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.errors import ConfigError
from jaxad.models.clip.config import Activation, CLIPConfig, TextConfig, VisionConfig
from jaxad.models.vit.network import LayerScale
from jaxad.nn import module_state
from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.positions import patch_grid, resize_positions
from jaxad.nn.precision import Linear
from jaxad.types import Array


class VisionOutput(NamedTuple):
    """What an image tower says about images; everything but `tokens` and `taps` has passed the final norm.

    Attributes:
        tokens: [b 1+n c], class token and patches after the last block, before the final norm.
        pooled: [b c], the class token, or the mean of the patches where the tower pools so.
        embedding: [b d], `pooled` in the space shared with texts.
        patches: [b n d], the patches in that space.
        taps: raw outputs [b 1+n c] of the blocks that were asked for, by their numbers.
    """

    tokens: jax.Array
    pooled: jax.Array
    embedding: jax.Array
    patches: jax.Array
    taps: dict[int, jax.Array]


class TextOutput(NamedTuple):
    """What a text tower says about texts.

    Attributes:
        hidden: [b n c], all tokens after the final norm.
        pooled: [b c], the token that stands for the text.
        embedding: [b d], `pooled` in the space shared with images; None for a tower without projection.
    """

    hidden: jax.Array
    pooled: jax.Array
    embedding: jax.Array | None


class VisionTower(nnx.Module):
    """Image tower.

    Args:
        config: its shape.
        dtype: compute type; parameters are float32, softmax and layer norms run in float32.
    """

    def __init__(self, config: VisionConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02, jnp.float32)
        side = config.image_size // config.patch
        self.config = config
        self.patch_embed = PatchEmbed(config.patch, config.width, dtype=dtype, rngs=rngs)
        self.class_embedding = nnx.Param(normal(rngs.params(), (config.width,)))
        self.positions = nnx.Param(normal(rngs.params(), (1 + side * side, config.width)))
        self.pre_norm = _norm(config, dtype, rngs) if config.pre_norm else None
        self.blocks = nnx.List([Block(config, causal=False, dtype=dtype, rngs=rngs) for _ in range(config.depth)])
        self.norm = _norm(config, dtype, rngs)
        self.projection = Linear(config.width, config.projection, use_bias=False, rounded=True, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        images: Array,
        taps: Collection[int] = (),
        vv_blocks: int = 0,
        tapped_path: Literal["original", "vv"] = "original",
    ) -> VisionOutput:
        """The whole tower, its last blocks with a second path on request.

        The second path x runs beside the original path o: from the first such block on, o goes on as ever, and x, which
        starts as that block's input, only gathers softmax(V V^T / sqrt(d)) V of o, without feed-forward layers. Its
        patches agree with texts where those of o do not. In the end the class token of x is that of o.

        Args:
            images: float [b h w 3], normalized by `config.normalization`; h and w multiples of the patch.
            taps: numbers of the blocks, counted from 0, whose outputs are wanted too.
            vv_blocks: number of the last blocks that have the second path; with 0 there is none.
            tapped_path: whose outputs `taps` are; before the first block of two paths both are the same.

        Raises:
            ConfigError: blocks or an image size that this tower cannot have.

        Source: CLIP Surgery (arXiv 2304.05653); PromptAD.
        """
        depth = len(self.blocks)
        if not set(taps) <= set(range(depth)):
            raise ConfigError(f"taps = {sorted(taps)}: needs some of 0 to {depth - 1}")
        if not 0 <= vv_blocks <= depth:
            raise ConfigError(f"vv_blocks = {vv_blocks}: must be 0 to {depth}")
        tapped = {}
        o = x = embedded = self.embed(images)
        for index, o, x in self._walk(embedded, vv_blocks):
            if index in taps:
                tapped[index] = x if tapped_path == "vv" else o
        tokens = jnp.concatenate([o[:, :1], x[:, 1:]], axis=1) if vv_blocks else o
        pooled = self.pool(o)
        patches = self.projection(self.norm(self.patches(tokens)))
        return VisionOutput(tokens, pooled, self.projection(pooled), patches, tapped)

    def embed(self, images: Array) -> jax.Array:
        """Input tokens [b 1+n c] of the first block for `images` [b h w 3]."""
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        grid = self.grid((images.shape[1], images.shape[2]))
        patches = self.patch_embed(images)
        class_position, positions = jnp.split(self.positions[...][None], [1], axis=1)
        positions = resize_positions(positions, grid, self.config.interpolation)
        leading = self.class_embedding[...].reshape(1, 1, -1) + class_position
        leading = jnp.broadcast_to(leading, (len(images), *leading.shape[1:])).astype(patches.dtype)
        tokens = jnp.concatenate([leading, patches + positions.astype(patches.dtype)], axis=1)
        return self.pre_norm(tokens) if self.pre_norm else tokens

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns (h, w) of the patches of an image of `size` (height, width) in pixels.

        Raises:
            ConfigError: a side that is no multiple of the patch.
        """
        return patch_grid(size, self.config.patch)

    def patches(self, tokens: jax.Array) -> jax.Array:
        """Patch tokens [b n c] of all tokens [b 1+n c]."""
        return tokens[:, 1:]

    def _walk(self, tokens: jax.Array, vv_blocks: int) -> Iterator[tuple[int, jax.Array, jax.Array]]:
        """Number, path o and path x of each block in turn."""
        o = x = tokens
        for index, block in enumerate(self.blocks):
            if index < len(self.blocks) - vv_blocks:
                o = x = block(o)
            else:
                o, added = block.two_paths(o)
                x = x + added
            yield index, o, x

    def pool(self, tokens: jax.Array) -> jax.Array:
        """What stands for all tokens [b 1+n c] of an image, or of a part of it: [b c]."""
        if self.config.pool == "class":
            return self.norm(tokens[:, 0])
        if self.config.norm_after_pool:
            return self.norm(self.patches(tokens).mean(axis=1))
        return self.norm(self.patches(tokens)).mean(axis=1)


class TextTower(nnx.Module):
    """Text tower.

    Args:
        config: its shape.
        dtype: compute type; parameters are float32, softmax and layer norms run in float32.
    """

    ROUNDED = ("positions",)

    def __init__(self, config: TextConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02, jnp.float32)
        self.config = config
        self.dtype = dtype
        self.tokens = nnx.Param(normal(rngs.params(), (config.vocabulary, config.width)))
        self.positions = nnx.Param(normal(rngs.params(), (config.context, config.width)))
        causal = config.causal
        self.blocks = nnx.List([Block(config, causal=causal, dtype=dtype, rngs=rngs) for _ in range(config.depth)])
        self.norm = _norm(config, dtype, rngs)
        d = config.projection
        self.projection = (
            None if d is None else Linear(config.width, d, use_bias=False, rounded=True, dtype=dtype, rngs=rngs)
        )

    def __call__(self, ids: Array, skip: int = 0, embedded: Array | None = None) -> TextOutput:
        """The whole tower.

        Args:
            ids: token ids, int [b n], with start, end and padding; n at most `config.context`.
            skip: number of the last blocks that are left out before the final norm; 1 for the penultimate output.
            embedded: [b n c] in place of what `embed` makes of the ids, for tokens that are learned; which token stands
                for a text the ids say all the same.

        Raises:
            ConfigError: more tokens than the tower has positions for, or more blocks left out than there are.
        """
        chex.assert_rank(ids, 2, custom_message="ids must be [b n]")
        chex.assert_type(ids, int, custom_message="ids must be integers")
        if ids.shape[1] > self.config.context:
            raise ConfigError(f"texts of {ids.shape[1]} tokens: this tower takes at most {self.config.context}")
        if not 0 <= skip < len(self.blocks):
            raise ConfigError(f"skip = {skip}: must be 0 to {len(self.blocks) - 1}")
        embedded = self.embed(ids) if embedded is None else jnp.asarray(embedded)
        x = embedded.astype(self.dtype) + self.positions[...].astype(self.dtype)[None, : ids.shape[1]]
        for index in range(len(self.blocks) - skip):
            x = self.blocks[index](x)
        hidden = self.norm(x)
        pooled = jnp.take_along_axis(hidden, self._places(ids)[:, None, None], axis=1)[:, 0]
        return TextOutput(hidden, pooled, self.projection(pooled) if self.projection else None)

    def embed(self, ids: Array) -> jax.Array:
        """Embeddings [... c] of token ids [...], without positions."""
        # An id that the table lacks gives NaN rather than another token's embedding.
        return jnp.take(self.tokens[...], ids, axis=0, mode="fill", fill_value=jnp.nan)

    def _places(self, ids: Array) -> jax.Array:
        """Place [b] of the token that stands for each text."""
        if self.config.pool == "last":
            return jnp.full(len(ids), ids.shape[1] - 1, jnp.int32)
        ids = jnp.asarray(ids)
        return (ids if self.config.pool == "largest" else ids == self.config.end).argmax(axis=1)


class CLIP(nnx.Module):
    """Both towers; `vision` and `text` are used on their own.

    Args:
        config: their shapes.
        dtype: compute type; parameters are float32.
    """

    def __init__(self, config: CLIPConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.vision = VisionTower(config.vision, dtype=dtype, rngs=rngs)
        self.text = TextTower(config.text, dtype=dtype, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.zeros((), jnp.float32))

    def scale(self) -> jax.Array:
        """What cosines between images and texts are multiplied by before the softmax, about 100; float32 scalar.

        It is the exponential of the checkpoint's `logit_scale`.
        """
        return jnp.exp(self.logit_scale[...])


class PatchEmbed(nnx.Module):
    """Linear projection of each patch without bias, as a reshape and one product."""

    ROUNDED = ("kernel",)

    def __init__(self, patch: int, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.dtype = dtype
        initial = nnx.initializers.lecun_normal(in_axis=(0, 1, 2), dtype=jnp.float32)
        self.kernel = nnx.Param(initial(rngs.params(), (patch, patch, 3, width)))

    def __call__(self, images: Array) -> jax.Array:
        """[b h w 3] -> [b n c]."""
        b, height, width, _ = images.shape
        p = self.kernel.shape[0]
        x = jnp.asarray(images, self.dtype).reshape(b, height // p, p, width // p, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * 3)
        return x @ self.kernel[...].reshape(p * p * 3, -1).astype(self.dtype)


class Block(nnx.Module):
    """Pre-norm transformer block of either tower."""

    def __init__(self, config: VisionConfig | TextConfig, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        self.norm1 = _norm(config, dtype, rngs)
        self.attention = Attention(config.width, config.heads, causal=causal, dtype=dtype, rngs=rngs)
        self.scale1 = LayerScale(config.width) if config.layer_scale else None
        self.norm2 = _norm(config, dtype, rngs)
        self.mlp = MLP(config.width, config.hidden, config.activation, dtype=dtype, rngs=rngs)
        self.scale2 = LayerScale(config.width) if config.layer_scale else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n c] -> [b n c]."""
        return self._feed_forward(self.attended(x))

    def attended(self, x: jax.Array) -> jax.Array:
        """The first half of the block, before its feed-forward layer: [b n c] -> [b n c]."""
        return x + self._scaled(self.attention(self.norm1(x)))

    def after_attention(self, x: jax.Array, attention: jax.Array) -> jax.Array:
        """Output of the block from its input and what its attention says [b n c]."""
        return self._feed_forward(x + self._scaled(attention))

    def two_paths(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Output [b n c] of the block, and what it adds to the second path [b n c]."""
        original, vv = self.attention.two_paths(self.norm1(x))
        return self.after_attention(x, original), self._scaled(vv)

    def _scaled(self, y: jax.Array) -> jax.Array:
        return self.scale1(y) if self.scale1 else y

    def _feed_forward(self, x: jax.Array) -> jax.Array:
        y = self.mlp(self.norm2(x))
        return x + (self.scale2(y) if self.scale2 else y)


class Attention(nnx.Module):
    """Multi-head self-attention with softmax in float32."""

    def __init__(self, width: int, heads: int, *, causal: bool, dtype: Any, rngs: nnx.Rngs):
        self.heads, self.causal = heads, causal
        self.query, self.key, self.value, self.out = (
            Linear(width, width, rounded=True, dtype=dtype, rngs=rngs) for _ in range(4)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n c] -> [b n c]."""
        return self.out(attention(self.query(x), self.key(x), self.value(x), self.heads, causal=self.causal))

    def two_paths(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The same, and with the values in place of queries and keys."""
        value = self.value(x)
        original = attention(self.query(x), self.key(x), value, self.heads, causal=self.causal)
        return self.out(original), self.out(attention(value, value, value, self.heads, causal=self.causal))


class MLP(nnx.Module):
    """Feed-forward layer."""

    def __init__(self, width: int, hidden: int, activation: Activation, *, dtype: Any, rngs: nnx.Rngs):
        self.activation = activation
        self.fc1 = Linear(width, hidden, rounded=True, dtype=dtype, rngs=rngs)
        self.fc2 = Linear(hidden, width, rounded=True, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n c] -> [b n c]."""
        x = self.fc1(x)
        if self.activation == "quick_gelu":
            return self.fc2(x * jax.nn.sigmoid(1.702 * x))
        return self.fc2(gelu(x))


def abstract_clip(config: CLIPConfig, dtype: Any = jnp.float32) -> CLIP:
    """Both towers' structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: CLIP(config, dtype=dtype, rngs=rngs))


def abstract_vision_tower(config: VisionConfig, dtype: Any = jnp.float32) -> VisionTower:
    """The image tower's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: VisionTower(config, dtype=dtype, rngs=rngs))


def abstract_text_tower(config: TextConfig, dtype: Any = jnp.float32) -> TextTower:
    """The text tower's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: TextTower(config, dtype=dtype, rngs=rngs))


def _norm(config: VisionConfig | TextConfig, dtype: Any, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(config.width, epsilon=config.norm_eps, dtype=dtype, rngs=rngs)
