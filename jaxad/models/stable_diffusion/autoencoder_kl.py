"""AutoencoderKL, the first stage of Stable Diffusion (KL-f8; arXiv 2112.10752)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx, struct

from jaxad.models.stable_diffusion.blocks import ResnetBlock, SpatialAttention, conv, double, group_norm, linear
from jaxad.models.stable_diffusion.checkpoints import (
    AUTOENCODER_TRAINING,
    autoencoder_key_maps,
    find_part,
    infer_autoencoder_config,
    is_ldm,
    write_diffusers,
)
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.models.weights.key_map import choose_key_map, fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.nn.rematerialization import rematerialized
from jaxad.types import Array

EPS = 1e-6
"""Epsilon of all its group norms."""


@struct.dataclass
class Moments:
    """The posterior of latents: a Gaussian for each value.

    Attributes:
        mean: float32 [b h w c], also the mode.
        logvar: float32 [b h w c], logarithm of the variance, -30 to 20.
    """

    mean: jax.Array
    logvar: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """Latents [b h w c], drawn with `key`.

        Args:
            key: one key; or keys [b], one for each image, so that no latents depend on the rest of the batch.
        """
        keys = key if key.ndim else jax.random.split(key, len(self.mean))
        noise = jax.vmap(lambda key: jax.random.normal(key, self.mean.shape[1:], jnp.float32))(keys)
        return self.mean + jnp.exp(0.5 * self.logvar) * noise

    def kl(self) -> jax.Array:
        """Kullback-Leibler divergence from the standard Gaussian, summed over each image: [b], in nats."""
        return 0.5 * (jnp.square(self.mean) + jnp.exp(self.logvar) - 1 - self.logvar).sum((1, 2, 3))


class AutoencoderKL(nnx.Module):
    """Images to latents and back.

    Args:
        config: its shape.
        remat: whether training recomputes activations block by block instead of keeping them (jax.checkpoint).
        dtype: compute type; parameters are float32, softmax and norms run in float32.
    """

    def __init__(self, config: AutoencoderConfig, *, remat: bool = False, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        options, latents = {"dtype": dtype, "rngs": rngs}, config.latent_channels
        self.config, self.dtype = config, dtype
        self.encoder = Encoder(config, remat=remat, **options)
        self.quant_conv = linear(2 * latents, 2 * latents, **options)
        self.post_quant_conv = linear(latents, latents, **options)
        self.decoder = Decoder(config, remat=remat, **options)

    def encode(self, images: Array) -> Moments:
        """The posterior [b h/8 w/8 4] of images [b h w 3] in the range of its training, -1 to 1 for SD.

        Latents are not scaled: a UNet takes them times `config.scaling_factor`.
        """
        chex.assert_rank(images, 4, custom_message="images must be [b h w 3]")
        moments = self.quant_conv(self.encoder(jnp.asarray(images, self.dtype))).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return Moments(mean, jnp.clip(logvar, -30, 20))

    def decode(self, latents: Array) -> jax.Array:
        """Images float32 [b 8h 8w 3], not clamped, of latents [b h w 4] that are not scaled."""
        chex.assert_rank(latents, 4, custom_message="latents must be [b h w c]")
        return self.decoder(self.post_quant_conv(jnp.asarray(latents, self.dtype))).astype(jnp.float32)


class Encoder(nnx.Module):
    """Image -> raw moments."""

    def __init__(self, config: AutoencoderConfig, *, remat: bool, dtype: Any, rngs: nnx.Rngs):
        widths, options = config.block_out_channels, {"dtype": dtype, "rngs": rngs}
        levels = range(len(widths))
        self.remat = remat
        self.conv_in = conv(config.in_channels, widths[0], **options)
        self.down_blocks = nnx.List(
            [
                DownBlock(config, widths[max(level - 1, 0)], widths[level], level < levels[-1], **options)
                for level in levels
            ]
        )
        self.mid_block = MidBlock(config, **options)
        self.conv_norm_out = group_norm(widths[-1], config.norm_num_groups, EPS, rngs)
        self.conv_out = conv(widths[-1], 2 * config.latent_channels, **options)

    def __call__(self, images: jax.Array) -> jax.Array:
        """[b h w 3] -> [b h/8 w/8 8]."""
        x = self.conv_in(images)
        for block in (*self.down_blocks, self.mid_block):
            x = rematerialized(block, self.remat)(x)
        return self.conv_out(nnx.silu(self.conv_norm_out(x)))


class Decoder(nnx.Module):
    """Latents -> image."""

    def __init__(self, config: AutoencoderConfig, *, remat: bool, dtype: Any, rngs: nnx.Rngs):
        widths, options = config.block_out_channels[::-1], {"dtype": dtype, "rngs": rngs}
        blocks = range(len(widths))
        self.remat = remat
        self.conv_in = conv(config.latent_channels, widths[0], **options)
        self.mid_block = MidBlock(config, **options)
        self.up_blocks = nnx.List(
            [
                UpBlock(config, widths[max(block - 1, 0)], widths[block], block < blocks[-1], **options)
                for block in blocks
            ]
        )
        self.conv_norm_out = group_norm(widths[-1], config.norm_num_groups, EPS, rngs)
        self.conv_out = conv(widths[-1], config.out_channels, **options)

    def __call__(self, latents: jax.Array) -> jax.Array:
        """[b h w 4] -> [b 8h 8w 3]."""
        return self.conv_out(self.features(latents))

    def features(self, latents: jax.Array) -> jax.Array:
        """What the last convolution takes: [b h w 4] -> [b 8h 8w c]."""
        x = self.conv_in(latents)
        for block in (self.mid_block, *self.up_blocks):
            x = rematerialized(block, self.remat)(x)
        return nnx.silu(self.conv_norm_out(x))


class DownBlock(nnx.Module):
    """ResNet blocks, then a convolution of stride 2 whose padding is one row and column at the end only."""

    def __init__(
        self, config: AutoencoderConfig, n_in: int, width: int, downsample: bool, *, dtype: Any, rngs: nnx.Rngs
    ):
        inputs = [n_in] + [width] * (config.layers_per_block - 1)
        self.resnets = nnx.List([_resnet(config, n, width, dtype=dtype, rngs=rngs) for n in inputs])
        padding = ((0, 1), (0, 1))
        self.downsampler = conv(width, width, stride=2, padding=padding, dtype=dtype, rngs=rngs) if downsample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.downsampler is None else self.downsampler(x)


class MidBlock(nnx.Module):
    """ResNet block, self-attention, ResNet block."""

    def __init__(self, config: AutoencoderConfig, *, dtype: Any, rngs: nnx.Rngs):
        width, groups = config.block_out_channels[-1], config.norm_num_groups
        self.resnets = nnx.List([_resnet(config, width, width, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.attentions = nnx.List([SpatialAttention(width, groups=groups, eps=EPS, dtype=dtype, rngs=rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.resnets[1](self.attentions[0](self.resnets[0](x)))


class UpBlock(nnx.Module):
    """ResNet blocks, one more than in the encoder, then nearest-neighbor doubling and a convolution."""

    def __init__(self, config: AutoencoderConfig, n_in: int, width: int, upsample: bool, *, dtype: Any, rngs: nnx.Rngs):
        inputs = [n_in] + [width] * config.layers_per_block
        self.resnets = nnx.List([_resnet(config, n, width, dtype=dtype, rngs=rngs) for n in inputs])
        self.upsampler = conv(width, width, dtype=dtype, rngs=rngs) if upsample else None

    def __call__(self, x: jax.Array) -> jax.Array:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsampler is None else self.upsampler(double(x))


def load_autoencoder(
    source: str | Path | Weights,
    dtype: Any = jnp.float32,
    *,
    revision: str | None = None,
    remat: bool = False,
    param_dtype: Any = jnp.float32,
) -> AutoencoderKL:
    """The autoencoder of a source, its shape taken from its config.json, or from its tensors (LDM .ckpt).

    Args:
        source: a folder or hub id in diffusers layout (of a pipeline or of the autoencoder alone), one .ckpt or
            .safetensors file (Stable Diffusion's, or latent diffusion's kl-f8), or weights already found.
        dtype: compute type.
        revision: branch, tag or commit on the hub.
        remat: see `AutoencoderKL`.
        param_dtype: type of the parameters; float32 to train, bfloat16 halves the memory of a frozen network.

    Raises:
        WeightsError: there are no such weights, they are no such autoencoder, or they do not fit it.
    """
    weights = source if isinstance(source, Weights) else find_part(source, "vae", revision)
    with weights.reading():
        ldm = is_ldm(weights)
        config = infer_autoencoder_config(weights) if ldm else AutoencoderConfig.from_diffusers(weights.config)
        weights.check_blocks(config.layers_per_block * len(config.block_out_channels))
        _, key_map = choose_key_map(weights, autoencoder_key_maps(config))
        network = abstract_autoencoder(config, dtype, remat=remat)
        return fill(network, weights, key_map, ignore=AUTOENCODER_TRAINING, dtype=param_dtype)


def save_autoencoder(autoencoder: AutoencoderKL, folder: str | Path) -> None:
    """Write an autoencoder as a folder that diffusers and `load_autoencoder` read."""
    config = autoencoder.config
    write_diffusers(autoencoder, autoencoder_key_maps(config)["diffusers"], config.to_diffusers(), folder)


def abstract_autoencoder(config: AutoencoderConfig, dtype: Any = jnp.float32, *, remat: bool = False) -> AutoencoderKL:
    """The network's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: AutoencoderKL(config, remat=remat, dtype=dtype, rngs=rngs))


def _resnet(config: AutoencoderConfig, n_in: int, n_out: int, **options: Any) -> ResnetBlock:
    return ResnetBlock(n_in, n_out, groups=config.norm_num_groups, eps=EPS, **options)
