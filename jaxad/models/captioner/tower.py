"""InternViT, and the projector that makes its patches tokens of the language model (arXiv 2312.14238, 2404.16821)."""

from __future__ import annotations

from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.models.captioner.config import TowerConfig
from jaxad.models.vit.network import LayerScale
from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.precision import Linear, whole
from jaxad.types import Array


class Tower(nnx.Module):
    """Vision Transformer without final norm.

    Args:
        config: its shape.
        dtype: compute type, which kernels have too; residuals, softmax and norms are float32.
    """

    def __init__(self, config: TowerConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02, jnp.float32)
        side = config.image_size // config.patch
        self.config, self.dtype = config, dtype
        shape = (config.patch, config.patch, 3, config.width)
        self.patch_embed = PatchEmbed(shape, dtype=dtype, rngs=rngs)
        self.cls_token = nnx.Param(normal(rngs.params(), (1, 1, config.width)))
        self.positions = nnx.Param(normal(rngs.params(), (1, 1 + side * side, config.width)))
        self.blocks = nnx.List([Block(config, dtype=dtype, rngs=rngs) for _ in range(config.depth)])

    def __call__(self, tiles: Array) -> jax.Array:
        """Patches [b n c], float32, of normalized tiles [b h w 3], h and w the config's `image_size`."""
        side = self.config.image_size
        chex.assert_shape(tiles, (None, side, side, 3), custom_message="tiles must be [b h w 3] of the tower's size")
        leading = jnp.broadcast_to(self.cls_token[...], (len(tiles), 1, self.config.width))
        x = jnp.concatenate([leading, self.patch_embed(tiles)], axis=1) + self.positions[...]
        for block in self.blocks:
            x = block(x)
        return x[:, 1:]


class PatchEmbed(nnx.Module):
    """Linear projection of each patch."""

    def __init__(self, shape: tuple[int, ...], *, dtype: Any, rngs: nnx.Rngs):
        self.dtype = dtype
        initial = nnx.initializers.lecun_normal(in_axis=(0, 1, 2), dtype=dtype)
        self.kernel = nnx.Param(initial(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(shape[-1], jnp.float32))

    def __call__(self, images: Array) -> jax.Array:
        """[b h w 3] -> [b n c], float32."""
        b, height, width, _ = images.shape
        p = self.kernel.shape[0]
        x = jnp.asarray(images, self.dtype).reshape(b, height // p, p, width // p, p, 3)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, p * p * 3)
        kernel = whole(self.kernel[...].reshape(p * p * 3, -1))
        y = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
        return y + self.bias[...].reshape(1, 1, -1)


class Block(nnx.Module):
    """Pre-norm transformer block with gains on both branches."""

    def __init__(self, config: TowerConfig, *, dtype: Any, rngs: nnx.Rngs):
        self.norm1 = _norm(config, rngs)
        self.attention = Attention(config, dtype=dtype, rngs=rngs)
        self.scale1 = LayerScale(config.width)
        self.norm2 = _norm(config, rngs)
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.fc1 = Linear(config.width, config.hidden, rounded=True, **options)
        self.fc2 = Linear(config.hidden, config.width, **options)
        self.scale2 = LayerScale(config.width)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n c] -> [b n c], float32."""
        x = x + self.scale1(self.attention(self.norm1(x)))
        return x + self.scale2(self.fc2(gelu(self.fc1(self.norm2(x)))))


class Attention(nnx.Module):
    """Multi-head self-attention with softmax in float32."""

    def __init__(self, config: TowerConfig, *, dtype: Any, rngs: nnx.Rngs):
        width, self.heads, self.dtype = config.width, config.heads, dtype
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.query, self.key, self.value = (
            Linear(width, width, rounded=True, use_bias=config.qkv_bias, **options) for _ in range(3)
        )
        self.query_norm = _norm(config, rngs, "rms_norm") if config.head_norm else None
        self.key_norm = _norm(config, rngs, "rms_norm") if config.head_norm else None
        self.out = Linear(width, width, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b n c] -> [b n c], float32."""
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.query_norm and self.key_norm:
            # Over all heads together.
            query, key = self.query_norm(query).astype(self.dtype), self.key_norm(key).astype(self.dtype)
        return self.out(attention(query, key, value, self.heads))


class Projector(nnx.Module):
    """Squares of patches as tokens of the language model: norm, linear layer, GELU, linear layer.

    Args:
        width: channels of a patch.
        shrink: side of the squares in patches.
        outputs: channels of a token.
        dtype: compute type, which kernels have too.
    """

    def __init__(self, width: int, shrink: int, outputs: int, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.shrink, inputs = shrink, width * shrink**2
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": dtype, "rngs": rngs}
        self.norm = nnx.LayerNorm(inputs, epsilon=1e-5, dtype=jnp.float32, rngs=rngs)
        self.fc1 = Linear(inputs, outputs, rounded=True, **options)
        self.fc2 = Linear(outputs, outputs, **options)

    def __call__(self, patches: jax.Array) -> jax.Array:
        """Patches [b n c] of square grids -> tokens [b n/shrink^2 outputs], float32."""
        b, n, c = patches.shape
        side, s = round(n**0.5), self.shrink
        squares = patches.reshape(b, side // s, s, side // s, s, c).transpose(0, 1, 3, 2, 4, 5)
        return self.fc2(gelu(self.fc1(self.norm(squares.reshape(b, -1, s * s * c)))))


def _norm(config: TowerConfig, rngs: nnx.Rngs, kind: str = "") -> nnx.LayerNorm | nnx.RMSNorm:
    norm = nnx.RMSNorm if (kind or config.norm) == "rms_norm" else nnx.LayerNorm
    return norm(config.width, epsilon=config.norm_eps, dtype=jnp.float32, rngs=rngs)
