"""UNet2DConditionModel of Stable Diffusion 1.5, 2-base and 2-inpainting (arXiv 2112.10752)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.errors import ConfigError
from jaxad.models.stable_diffusion.blocks import (
    Heads,
    ResnetBlock,
    SpatialTransformer,
    conv,
    double,
    group_norm,
    linear,
)
from jaxad.models.stable_diffusion.checkpoints import (
    find_part,
    infer_unet_config,
    is_ldm,
    unet_key_map,
    write_diffusers,
)
from jaxad.models.stable_diffusion.config import UNetConfig
from jaxad.models.weights.key_map import fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.nn.rematerialization import rematerialized
from jaxad.nn.timesteps import timestep_embedding
from jaxad.types import Array

Skips = tuple[jax.Array, ...]
"""Encoder outputs that the decoder still has to take, the next one last."""

LAYERS = ".layers"
"""Ends the name of a tap that is taken before its stage's resampling."""

Maps = dict[int, jax.Array]
"""Cross-attention probabilities of a stage by the number of the transformer."""


class UNetEncoder(nnx.Module):
    """Time embedding, encoder and middle of the UNet; alone it is the trunk of a ControlNet (arXiv 2302.05543).

    Args:
        config: its shape.
        remat: whether training recomputes activations layer by layer instead of keeping them (jax.checkpoint).
        dtype: compute type; parameters are float32, softmax and norms run in float32.
    """

    def __init__(self, config: UNetConfig, *, remat: bool = False, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        widths, options = config.block_out_channels, {"remat": remat, "dtype": dtype, "rngs": rngs}
        self.config, self.dtype = config, dtype
        self.time_embedding = TimeEmbedding(widths[0], dtype=dtype, rngs=rngs)
        self.conv_in = conv(config.in_channels, widths[0], dtype=dtype, rngs=rngs)
        self.down_blocks = nnx.List([DownBlock(config, level, **options) for level in range(len(widths))])
        self.mid_block = MidBlock(config, **options)

    def encode(
        self, latents: Array, temb: jax.Array, context: Array, hint: Array | None = None
    ) -> tuple[jax.Array, Skips]:
        """The encoder half.

        Args:
            latents: [b h w in_channels], scaled as the UNet was trained, by the autoencoder's `scaling_factor`.
            temb: [b d] from `time_embedding(timesteps)`.
            context: text tokens [b k cross_attention_dim].
            hint: [b h w block_out_channels[0]], added to the output of the first convolution.

        Returns:
            The lowest resolution's features [b h' w' c], and the skips: after the first convolution, each layer and
            each downsampler.
        """
        self._check(latents, context)
        chex.assert_rank(temb, 2, custom_message="temb must be [b d]")
        x = self.conv_in(jnp.asarray(latents, self.dtype))
        if hint is not None:
            x = x + jnp.asarray(hint, self.dtype)
        names = [f"down_blocks.{level}" for level in range(len(self.down_blocks))]
        return self._run(names, x, (x,), temb, context)[:2]

    def middle(self, x: jax.Array, temb: jax.Array, context: Array) -> jax.Array:
        """The middle block: [b h w c] -> [b h w c]."""
        return self._run(["mid_block"], x, (), temb, context)[0]

    @property
    def stages(self) -> dict[str, Any]:
        """The blocks by name in the order of the data, such as "down_blocks.0" and "mid_block"."""
        down = {f"down_blocks.{level}": block for level, block in enumerate(self.down_blocks)}
        return {**down, "mid_block": self.mid_block}

    def _check(self, latents: Array, context: Array) -> None:
        channels, width = self.config.in_channels, self.config.cross_attention_dim
        chex.assert_shape(latents, (None, None, None, channels), custom_message="latents must be [b h w in_channels]")
        needed = "context must be [b k cross_attention_dim]"
        chex.assert_shape(context, (len(latents), None, width), custom_message=needed)

    def _run(
        self,
        names: Sequence[str],
        x: jax.Array,
        skips: Skips,
        temb: jax.Array,
        context: Array,
        sites: Collection[str] = (),
        heads: Heads = "mean",
    ) -> tuple[jax.Array, Skips, dict[str, jax.Array], dict[str, jax.Array]]:
        """The stages of those names; returns features and skips, each stage's output and the maps of `sites`."""
        outputs, maps, context = {}, {}, jnp.asarray(context, self.dtype)
        for name in names:
            prefix = f"{name}.attentions."
            wanted = {int(site.removeprefix(prefix)): heads for site in sites if site.startswith(prefix)}
            stage = self.stages[name]
            x, skips, found = stage(x, skips, temb, context, wanted)
            outputs[name + LAYERS] = x
            x, skips = stage.resample(x, skips)
            outputs[name] = x
            maps |= {f"{prefix}{index}": probabilities for index, probabilities in found.items()}
        return x, skips, outputs, maps


class UNet(UNetEncoder):
    """The whole network: predicts the noise in latents; see `UNetEncoder` for the arguments."""

    def __init__(self, config: UNetConfig, *, remat: bool = False, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        super().__init__(config, remat=remat, dtype=dtype, rngs=rngs)
        widths = config.block_out_channels
        self.up_blocks = nnx.List(
            [UpBlock(config, block, remat=remat, dtype=dtype, rngs=rngs) for block in range(len(widths))]
        )
        self.conv_norm_out = group_norm(widths[0], config.norm_num_groups, config.norm_eps, rngs)
        self.conv_out = conv(widths[0], config.out_channels, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        latents: Array,
        timesteps: Array,
        context: Array,
        *,
        taps: Collection[str] = (),
        attention_sites: Collection[str] = (),
        heads: Heads = "mean",
        output: bool = True,
    ) -> tuple[jax.Array | None, dict[str, jax.Array], dict[str, jax.Array]]:
        """The noise, and on request what is inside; requests leave the output as it is.

        Args:
            latents: [b h w in_channels], any h and w.
            timesteps: [b], 0 to 999.
            context: text tokens [b k cross_attention_dim].
            taps: stages whose outputs are wanted, such as "up_blocks.1" (after its upsampler), or
                "up_blocks.1.layers" (before it).
            attention_sites: cross-attentions whose probabilities are wanted, of `config.attention_sites`.
            heads: "mean" averages the probabilities over heads, "each" keeps them.
            output: False leaves out the output, and all stages behind the last one that is asked for.

        Returns:
            Noise float32 [b h w out_channels] or None; features [b h' w' c] by stage; probabilities float32
            [b h' w' k], or [b heads h' w' k] for "each", by site.

        Raises:
            ConfigError: a stage or site that this network does not have, or nothing asked for.
        """
        self._check(latents, context)
        chex.assert_shape(timesteps, (len(latents),), custom_message="timesteps must be [b]")
        names = list(self.stages)
        deepest = self._deepest(taps, attention_sites, output)
        temb = self.time_embedding(timesteps)
        x = self.conv_in(jnp.asarray(latents, self.dtype))
        x, _, outputs, maps = self._run(names[: deepest + 1], x, (x,), temb, context, attention_sites, heads)
        return (
            self._noise(x) if output else None,
            {name: outputs[name] for name in taps},
            {site: maps[site] for site in attention_sites},
        )

    def decode(self, x: jax.Array, skips: Skips, temb: jax.Array, context: Array) -> jax.Array:
        """The decoder half: features after the middle block and the encoder's skips -> noise float32 [b h w 4]."""
        names = [f"up_blocks.{block}" for block in range(len(self.up_blocks))]
        return self._noise(self._run(names, x, skips, temb, context)[0])

    @property
    def stages(self) -> dict[str, Any]:
        """The blocks by name in the order of the data: encoder, middle, then "up_blocks.0" and so on."""
        return {**super().stages, **{f"up_blocks.{index}": block for index, block in enumerate(self.up_blocks)}}

    def _noise(self, x: jax.Array) -> jax.Array:
        return self.conv_out(nnx.silu(self.conv_norm_out(x))).astype(jnp.float32)

    def _deepest(self, taps: Collection[str], sites: Collection[str], output: bool) -> int:
        """Number of the last stage that has to run."""
        stages = list(self.stages)
        tapped = [tap.removesuffix(LAYERS) for tap in taps]
        if strangers := sorted(set(tapped) - set(stages)):
            raise ConfigError(f"taps {strangers}: must be of {', '.join(stages)}")
        if strangers := sorted(set(sites) - set(self.config.attention_sites)):
            raise ConfigError(f"attention sites {strangers}: must be of {', '.join(self.config.attention_sites)}")
        if output:
            return len(stages) - 1
        asked = [*tapped, *(site.partition(".attentions")[0] for site in sites)]
        if not asked:
            raise ConfigError("output = False: name one or more taps or attention sites")
        return max(map(stages.index, asked))


class TimeEmbedding(nnx.Module):
    """Timesteps [b] -> [b 4 width]: sinusoids, cosines first, then two linear layers with SiLU between them."""

    def __init__(self, width: int, *, dtype: Any, rngs: nnx.Rngs):
        self.width = width
        self.linear_1 = linear(width, 4 * width, dtype=dtype, rngs=rngs)
        self.linear_2 = linear(4 * width, 4 * width, dtype=dtype, rngs=rngs)

    def __call__(self, timesteps: Array) -> jax.Array:
        return self.linear_2(nnx.silu(self.linear_1(timestep_embedding(timesteps, self.width))))


class Stage(nnx.Module):
    """Layers of one resolution, ResNet blocks with a transformer behind each where it has attention; then resampling.

    Abstract: a call runs the layers, features [b h w c] -> (features, the skips then to be taken, the maps `wanted`).
    """

    resnets: nnx.List[ResnetBlock]
    attentions: nnx.List[SpatialTransformer] | None
    remat: bool

    def layer(
        self, index: int, x: jax.Array, temb: jax.Array, context: jax.Array, heads: Heads | None
    ) -> tuple[jax.Array, jax.Array | None]:
        """ResNet block `index` and its transformer: features, and the attention probabilities if `heads` asks."""

        def run(x: jax.Array, temb: jax.Array, context: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            x = self.resnets[index](x, temb)
            return (x, None) if self.attentions is None else self.attentions[index](x, context, heads)

        return rematerialized(run, self.remat)(x, temb, context)

    def resample(self, x: jax.Array, skips: Skips) -> tuple[jax.Array, Skips]:
        """What the next stage starts from: features at its resolution, and the skips."""
        return x, skips


class DownBlock(Stage):
    """DownBlock2D or CrossAttnDownBlock2D: layers, then a convolution of stride 2 except at the lowest level."""

    def __init__(self, config: UNetConfig, level: int, *, remat: bool, dtype: Any, rngs: nnx.Rngs):
        widths, self.remat = config.block_out_channels, remat
        n_in, width = widths[max(level - 1, 0)], widths[level]
        options = {"dtype": dtype, "rngs": rngs}
        inputs = [n_in] + [width] * (config.layers_per_block - 1)
        self.resnets = nnx.List([_resnet(config, n, width, **options) for n in inputs])
        has_attention = config.down_attention[level]
        self.attentions = nnx.List([_transformer(config, level, **options) for _ in inputs]) if has_attention else None
        self.downsampler = conv(width, width, stride=2, **options) if level < len(widths) - 1 else None

    def __call__(
        self, x: jax.Array, skips: Skips, temb: jax.Array, context: jax.Array, wanted: Mapping[int, Heads]
    ) -> tuple[jax.Array, Skips, Maps]:
        """Features of this level, the skips with those of its layers, and the maps of the transformers `wanted`."""
        maps = {}
        for index in range(len(self.resnets)):
            x, maps[index] = self.layer(index, x, temb, context, wanted.get(index))
            skips = (*skips, x)
        return x, skips, _found(maps)

    def resample(self, x: jax.Array, skips: Skips) -> tuple[jax.Array, Skips]:
        if self.downsampler is None:
            return x, skips
        x = self.downsampler(x)
        return x, (*skips, x)


class MidBlock(Stage):
    """UNetMidBlock2DCrossAttn: ResNet block, transformer, ResNet block."""

    def __init__(self, config: UNetConfig, *, remat: bool, dtype: Any, rngs: nnx.Rngs):
        width, self.remat = config.block_out_channels[-1], remat
        self.resnets = nnx.List([_resnet(config, width, width, dtype=dtype, rngs=rngs) for _ in range(2)])
        self.attentions = nnx.List([_transformer(config, -1, dtype=dtype, rngs=rngs)])

    def __call__(
        self, x: jax.Array, skips: Skips, temb: jax.Array, context: jax.Array, wanted: Mapping[int, Heads]
    ) -> tuple[jax.Array, Skips, Maps]:
        """Features of the same shape, the skips as they are, and the map of the transformer if `wanted`."""
        x, probabilities = self.layer(0, x, temb, context, wanted.get(0))
        x = rematerialized(self.resnets[1], self.remat)(x, temb)
        return x, skips, _found({0: probabilities})


class UpBlock(Stage):
    """UpBlock2D or CrossAttnUpBlock2D: layers that each take one skip, then an upsampler except in the last block."""

    def __init__(self, config: UNetConfig, block: int, *, remat: bool, dtype: Any, rngs: nnx.Rngs):
        widths, self.remat = config.block_out_channels, remat
        level, layers = len(widths) - 1 - block, config.layers_per_block + 1
        width, above, below = widths[level], widths[max(level - 1, 0)], widths[min(level + 1, len(widths) - 1)]
        options = {"dtype": dtype, "rngs": rngs}
        # The deepest skip of a level comes from the level above it, through that level's downsampler.
        inputs = [below + width] + [2 * width] * (layers - 2) + [width + above]
        self.resnets = nnx.List([_resnet(config, n, width, **options) for n in inputs])
        has_attention = config.up_attention[block]
        self.attentions = nnx.List([_transformer(config, level, **options) for _ in inputs]) if has_attention else None
        self.upsampler = conv(width, width, **options) if level > 0 else None

    def __call__(
        self, x: jax.Array, skips: Skips, temb: jax.Array, context: jax.Array, wanted: Mapping[int, Heads]
    ) -> tuple[jax.Array, Skips, Maps]:
        """Features of this level, the skips not yet taken, and the maps of the transformers `wanted`."""
        maps = {}
        for index in range(len(self.resnets)):
            *rest, skip = skips
            skips = tuple(rest)
            x, maps[index] = self.layer(index, jnp.concatenate([x, skip], axis=-1), temb, context, wanted.get(index))
        return x, skips, _found(maps)

    def resample(self, x: jax.Array, skips: Skips) -> tuple[jax.Array, Skips]:
        if self.upsampler is None:
            return x, skips
        # An odd side was rounded up on the way down: its last row or column is dropped again.
        _, rows, columns, _ = skips[-1].shape
        return self.upsampler(double(x)[:, :rows, :columns]), skips


def load_unet(
    source: str | Path | Weights,
    dtype: Any = jnp.float32,
    *,
    revision: str | None = None,
    ema: bool = False,
    remat: bool = False,
    param_dtype: Any = jnp.float32,
) -> UNet:
    """The UNet of a Stable Diffusion source, its shape taken from its config.json, or from its tensors (LDM .ckpt).

    Args:
        source: a folder or hub id in diffusers layout (of the pipeline or of the UNet alone), one .ckpt or
            .safetensors file, or weights already found.
        dtype: compute type.
        revision: branch, tag or commit on the hub.
        ema: the moving average of a .ckpt that has both; VLMDiff starts from the other, as its code does.
        remat: see `UNetEncoder`.
        param_dtype: type of the parameters; float32 to train, bfloat16 halves the memory of a frozen network.

    Raises:
        WeightsError: there are no such weights, they are no UNet, or they do not fit it.
    """
    weights = source if isinstance(source, Weights) else find_part(source, "unet", revision, ema=ema)
    with weights.reading():
        ldm = is_ldm(weights)
        config = infer_unet_config(weights) if ldm else UNetConfig.from_diffusers(weights.config)
        weights.check_blocks(config.layers_per_block * len(config.block_out_channels))
        network = abstract_unet(config, dtype, remat=remat)
        return fill(network, weights, unet_key_map(config, ldm=ldm), dtype=param_dtype)


def save_unet(unet: UNet, folder: str | Path) -> None:
    """Write a UNet as a folder that diffusers and `load_unet` read."""
    write_diffusers(unet, unet_key_map(unet.config), unet.config.to_diffusers(), folder)


def abstract_unet(
    config: UNetConfig, dtype: Any = jnp.float32, *, remat: bool = False, encoder_only: bool = False
) -> Any:
    """A UNet's structure, or that of its encoder alone, without arrays, to be filled."""
    network = UNetEncoder if encoder_only else UNet
    return module_state.abstract(lambda rngs: network(config, remat=remat, dtype=dtype, rngs=rngs))


def _resnet(config: UNetConfig, n_in: int, n_out: int, **options: Any) -> ResnetBlock:
    time_width = 4 * config.block_out_channels[0]
    groups, eps = config.norm_num_groups, config.norm_eps
    return ResnetBlock(n_in, n_out, groups=groups, eps=eps, time_width=time_width, **options)


def _transformer(config: UNetConfig, level: int, **options: Any) -> SpatialTransformer:
    width, heads = config.block_out_channels[level], config.heads[level]
    return SpatialTransformer(width, config.cross_attention_dim, heads, groups=config.norm_num_groups, **options)


def _found(maps: Mapping[int, jax.Array | None]) -> Maps:
    return {index: probabilities for index, probabilities in maps.items() if probabilities is not None}
