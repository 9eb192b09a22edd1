"""Semantic-guided network of DiAD and VLMDiff: a ControlNet-like copy of the UNet's encoder."""

from __future__ import annotations

import itertools
import math
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.errors import ConfigError
from jaxad.models.stable_diffusion.blocks import conv, linear
from jaxad.models.stable_diffusion.config import UNetConfig
from jaxad.models.stable_diffusion.unet import UNet, UNetEncoder
from jaxad.nn import module_state
from jaxad.nn.precision import Conv
from jaxad.types import Array

HINT_WIDTHS = (16, 32, 96, 256)
"""Widths of the hint encoder at strides 1, 2, 4 and 8."""


class SGN(nnx.Module):
    """Reads the noisy latents together with the clean image, and says what to add to the UNet's deepest features.

    Of its outputs before the middle, only those at the lowest resolution reach the UNet; those one level above act on
    them through the fusion, those at higher resolutions not at all. Their zero convolutions are kept because
    they are among the published parameters.

    Args:
        config: shape of the UNet whose encoder it copies.
        factor: pixels of the image per latent, a power of 2 up to 8.
        remat: whether training recomputes activations layer by layer (jax.checkpoint).
        dtype: compute type.

    Raises:
        ConfigError: a factor for which there is no hint encoder.
    """

    def __init__(
        self, config: UNetConfig, factor: int, *, remat: bool = False, dtype: Any = jnp.float32, rngs: nnx.Rngs
    ):
        widths, layers = config.block_out_channels, config.layers_per_block
        options = {"dtype": dtype, "rngs": rngs}
        self.trunk = UNetEncoder(config, remat=remat, **options)
        self.hint = HintEncoder(widths[0], factor, **options)
        # The first skip of each further level is the output of the downsampler above it, and as wide as that level.
        groups = [[widths[max(level - 1, 0)]] + [widths[level]] * layers for level in range(len(widths))]
        self.zero_convs = nnx.List([linear(width, width, **options) for group in groups for width in group])
        self.middle_zero_conv = linear(widths[-1], widths[-1], **options)
        self.fusion = Fusion(groups[-2], groups[-1], **options)

    def __call__(
        self, latents: Array, timesteps: Array, context: Array, hint: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """What to add after the UNet's middle block, and to its skips of the lowest resolution in their order.

        Args:
            latents: noisy and scaled [b h w 4].
            timesteps: [b].
            context: text tokens [b k c].
            hint: `self.hint(image)`, [b h w c].
        """
        chex.assert_rank([latents, context, hint], [4, 3, 4], custom_message="latents, context, hint")
        chex.assert_shape(timesteps, (len(latents),), custom_message="timesteps must be [b]")
        temb = self.trunk.time_embedding(timesteps)
        x, skips = self.trunk.encode(latents, temb, context, hint)
        outputs = [zero_conv(skip) for zero_conv, skip in zip(self.zero_convs, skips, strict=True)]
        middle = self.middle_zero_conv(self.trunk.middle(x, temb, context))
        n = self.trunk.config.layers_per_block + 1
        return middle, self.fusion(outputs[-2 * n : -n], outputs[-n:])


class HintEncoder(nnx.Module):
    """Image [b H W 3] -> [b h w c] at the resolution of the latents: 3x3 convolutions with SiLU, the last one zero."""

    def __init__(self, width: int, factor: int, *, dtype: Any, rngs: nnx.Rngs):
        halvings = factor.bit_length() - 1
        if factor != 2**halvings or halvings >= len(HINT_WIDTHS):
            raise ConfigError(f"an autoencoder of factor {factor}: must be a power of 2 up to 8")
        widths = HINT_WIDTHS[: halvings + 1]
        convs = [conv(3, widths[0], dtype=dtype, rngs=rngs)]
        for above, below in itertools.pairwise(widths):
            convs.append(conv(above, above, dtype=dtype, rngs=rngs))
            convs.append(conv(above, below, stride=2, dtype=dtype, rngs=rngs))
        self.convs = nnx.List(convs)
        self.zero_conv = conv(widths[-1], width, dtype=dtype, rngs=rngs)

    def __call__(self, image: Array) -> jax.Array:
        x = jnp.asarray(image)
        for convolution in self.convs:
            x = nnx.silu(convolution(x))
        return self.zero_conv(x)


class Fusion(nnx.Module):
    """Spatial-aware feature fusion: each output y of the lowest level becomes silu(y + sum_i D_i(x_i)).

    The x_i are the outputs one level above; each D is a convolution of stride 2 that starts at zero, an instance norm
    and SiLU, with weights of its own for every pair. As published both the D and the zero convolutions that make the
    x_i start at zero, so that neither gets a gradient from the other: in training both stay what they are.

    Args:
        above, lowest: widths of the x and the y.
    """

    def __init__(self, above: list[int], lowest: list[int], *, dtype: Any, rngs: nnx.Rngs):

        def down(source: int, width: int) -> Conv:
            return Conv(source, width, (3, 3), strides=2, padding=1, use_bias=False, dtype=dtype, rngs=rngs)

        self.convs = nnx.List([nnx.List([down(source, width) for source in above]) for width in lowest])

    def __call__(self, above: list[jax.Array], lowest: list[jax.Array]) -> tuple[jax.Array, ...]:
        fused = []
        for y, convs in zip(lowest, self.convs, strict=True):
            for x, convolution in zip(above, convs, strict=True):
                y = y + nnx.silu(_instance_norm(convolution(x)))
            fused.append(nnx.silu(y))
        return tuple(fused)


def controlled_noise(
    unet: UNet, sgn: SGN, latents: Array, timesteps: Array, context: Array, hint: jax.Array
) -> jax.Array:
    """The noise float32 [b h w 4] that the UNet predicts with the SGN's help; arguments as for `SGN`."""
    middle, controls = sgn(latents, timesteps, context, hint)
    temb = unet.time_embedding(timesteps)
    x, skips = unet.encode(latents, temb, context)
    x = unet.middle(x, temb, context)
    deepest = (skip + control for skip, control in zip(skips[-len(controls) :], controls, strict=True))
    return unet.decode(x + middle, (*skips[: -len(controls)], *deepest), temb, context)


def make_sgn(unet: UNet, factor: int, key: jax.Array, *, remat: bool = False, dtype: Any = jnp.float32) -> SGN:
    """An SGN that changes nothing yet: trunk from the UNet, zero convolutions, the other hint layers drawn.

    Args:
        unet: the pretrained network.
        factor: pixels of the image per latent.
        key: of the hint encoder, which is drawn from U(-a, a) with a = 1 / sqrt(inputs), torch's default.
        remat, dtype: see `SGN`.
    """
    graphdef, parameters = module_state.split(abstract_sgn(unet.config, factor, remat=remat, dtype=dtype))
    pretrained = module_state.split(unet)[1]
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    arrays = {}
    for path, parameter in parameters.items():
        if path.startswith("trunk/"):
            arrays[path] = pretrained[path.removeprefix("trunk/")]
        elif path.startswith("hint/convs/"):
            kernel = parameters[path.rpartition("/")[0] + "/kernel"]
            bound = math.prod(kernel.shape[:-1]) ** -0.5
            arrays[path] = jnp.asarray(generator.uniform(-bound, bound, parameter.shape), parameter.dtype)
        else:
            arrays[path] = jnp.zeros(parameter.shape, parameter.dtype)
    return module_state.merge(graphdef, arrays)


def abstract_sgn(config: UNetConfig, factor: int, *, remat: bool = False, dtype: Any = jnp.float32) -> SGN:
    """The network's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: SGN(config, factor, remat=remat, dtype=dtype, rngs=rngs))


def _instance_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Each channel of each image to mean 0 and variance 1, in float32: [b h w c]."""
    high = x.astype(jnp.float32)
    centered = high - high.mean((1, 2), keepdims=True)
    return (centered * jax.lax.rsqrt(jnp.square(centered).mean((1, 2), keepdims=True) + eps)).astype(x.dtype)
