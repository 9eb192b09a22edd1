"""Shapes of the Stable Diffusion networks, to and from the config.json of diffusers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxad.errors import WeightsError
from jaxad.models.weights.config_fields import DEPTH, LEVELS, ConfigFields, is_size, shown

_DOWN_TYPES = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
_UP_TYPES = {"UpBlock2D": False, "CrossAttnUpBlock2D": True}


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the conditional UNet, fields named as in diffusers; the defaults are those of SD 1.5."""

    in_channels: int = 4
    """4 noisy latents; inpainting has 9: 4 noisy latents, 1 mask, 4 latents of the masked image."""
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    """Width of each level, from the full resolution down; each further level halves the sides."""
    layers_per_block: int = 2
    """ResNet blocks of an encoder level; a decoder level has one more."""
    down_attention: tuple[bool, ...] = (True, True, True, False)
    """Encoder levels whose ResNet blocks are each followed by a transformer."""
    up_attention: tuple[bool, ...] = (False, True, True, True)
    """The same for the decoder's levels, from the lowest resolution up."""
    heads: tuple[int, ...] = (8, 8, 8, 8)
    """Attention heads of each level, which diffusers calls `attention_head_dim`."""
    cross_attention_dim: int = 768
    """Width of the context tokens."""
    use_linear_projection: bool = False
    """Whether files hold the projections around a transformer as matrices (SD 2) or as 1x1 convolutions (SD 1)."""
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    """Epsilon of the ResNet blocks' and the last group norm; a transformer's is 1e-6, its layer norms' 1e-5."""

    @classmethod
    def sd15(cls) -> UNetConfig:
        """Stable Diffusion 1.5."""
        return cls()

    @classmethod
    def sd2(cls, inpainting: bool = False) -> UNetConfig:
        """Stable Diffusion 2-base, or 2-inpainting."""
        return cls(
            in_channels=9 if inpainting else 4,
            heads=(5, 10, 20, 20),
            cross_attention_dim=1024,
            use_linear_projection=True,
        )

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> UNetConfig:
        """The shape that config.json of diffusers' UNet2DConditionModel describes; missing fields have its defaults.

        Raises:
            WeightsError: another network, or settings that this one does not have, all named.
        """
        _require(config)
        c = ConfigFields("config.json", config, _UNET_DEFAULTS)
        _check_class(c, "UNet2DConditionModel")
        c.one_of(**{name: (needed,) for name, needed in _UNET_FIXED.items()})
        c.sizes("in_channels", "out_channels", "cross_attention_dim")
        c.flags("use_linear_projection")
        c.numbers("norm_eps")
        _check_levels(c, down_block_types=_DOWN_TYPES, up_block_types=_UP_TYPES)
        widths, heads = c["block_out_channels"], c["attention_head_dim"]
        if isinstance(heads, int):
            heads = [heads] * len(widths)
        needed = f"one whole number for each of block_out_channels = {shown(widths)}"
        if not isinstance(heads, list | tuple) or len(heads) != len(widths) or not all(map(is_size, heads)):
            c.problems.append(f"attention_head_dim = {shown(c['attention_head_dim'])}: must be {needed}")
        elif bad := [f"{width} / {n}" for width, n in zip(widths, heads, strict=True) if width % n]:
            c.problems.append(f"attention_head_dim = {shown(heads)}: no whole width of a head: {bad}")
        c.stop()
        return cls(
            in_channels=c["in_channels"],
            out_channels=c["out_channels"],
            block_out_channels=tuple(widths),
            layers_per_block=c["layers_per_block"],
            down_attention=tuple(_DOWN_TYPES[name] for name in c["down_block_types"]),
            up_attention=tuple(_UP_TYPES[name] for name in c["up_block_types"]),
            heads=tuple(heads),
            cross_attention_dim=c["cross_attention_dim"],
            use_linear_projection=c["use_linear_projection"],
            norm_num_groups=c["norm_num_groups"],
            norm_eps=c["norm_eps"],
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json by which diffusers makes the same network."""
        return {
            "_class_name": "UNet2DConditionModel",
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "down_block_types": [_type_of(_DOWN_TYPES, attention) for attention in self.down_attention],
            "up_block_types": [_type_of(_UP_TYPES, attention) for attention in self.up_attention],
            "attention_head_dim": list(self.heads),
            "cross_attention_dim": self.cross_attention_dim,
            "use_linear_projection": self.use_linear_projection,
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
        }

    @property
    def attention_sites(self) -> tuple[str, ...]:
        """Names of all cross-attentions in the order of the data, such as "down_blocks.0.attentions.1"."""
        layers = self.layers_per_block
        down = [
            f"down_blocks.{b}.attentions.{i}" for b, has in enumerate(self.down_attention) if has for i in range(layers)
        ]
        up = [
            f"up_blocks.{b}.attentions.{i}" for b, has in enumerate(self.up_attention) if has for i in range(layers + 1)
        ]
        return (*down, "mid_block.attentions.0", *up)


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of the autoencoder, fields named as in diffusers; the defaults are those of Stable Diffusion (KL-f8)."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
    """Width of each level, from the full resolution down; each further level halves the sides."""
    layers_per_block: int = 2
    """ResNet blocks of an encoder level; a decoder level has one more."""
    norm_num_groups: int = 32
    scaling_factor: float = 0.18215
    """What latents are multiplied by before a UNet sees them, and divided by before they are decoded."""
    pixels: Literal["imagenet", "symmetric"] | None = None
    """Range of images that jaxad finetuned it on, as `FirstStageConfig.pixels`; None where nothing says so."""

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> AutoencoderConfig:
        """The shape that config.json of diffusers' AutoencoderKL describes; missing fields have its defaults.

        Raises:
            WeightsError: another network, or settings that this one does not have, all named.
        """
        _require(config)
        c = ConfigFields("config.json", config, _AUTOENCODER_DEFAULTS)
        _check_class(c, "AutoencoderKL")
        c.one_of(**{name: (needed,) for name, needed in _AUTOENCODER_FIXED.items()})
        c.sizes("in_channels", "out_channels", "latent_channels")
        c.numbers("scaling_factor")
        c.one_of(pixels=(None, "imagenet", "symmetric"))
        types = {"down_block_types": {"DownEncoderBlock2D": True}, "up_block_types": {"UpDecoderBlock2D": True}}
        _check_levels(c, **types)
        c.stop()
        return cls(
            in_channels=c["in_channels"],
            out_channels=c["out_channels"],
            latent_channels=c["latent_channels"],
            block_out_channels=tuple(c["block_out_channels"]),
            layers_per_block=c["layers_per_block"],
            norm_num_groups=c["norm_num_groups"],
            scaling_factor=c["scaling_factor"],
            pixels=c["pixels"],
        )

    def to_diffusers(self) -> dict[str, Any]:
        """The config.json by which diffusers makes the same network."""
        levels = len(self.block_out_channels)
        # A key that diffusers does not know; it says so and goes on.
        pixels = {} if self.pixels is None else {"pixels": self.pixels}
        return {
            "_class_name": "AutoencoderKL",
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "latent_channels": self.latent_channels,
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * levels,
            "up_block_types": ["UpDecoderBlock2D"] * levels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "scaling_factor": self.scaling_factor,
            **pixels,
        }


_UNET_DEFAULTS: dict[str, Any] = {
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "attention_head_dim": 8,
    "cross_attention_dim": 1280,
    "use_linear_projection": False,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
}
_UNET_FIXED: dict[str, Any] = {
    "center_input_sample": False,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "only_cross_attention": False,
    "mid_block_only_cross_attention": None,
    "dual_cross_attention": False,
    "downsample_padding": 1,
    "mid_block_scale_factor": 1,
    "act_fn": "silu",
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "num_attention_heads": None,
    "class_embed_type": None,
    "num_class_embeds": None,
    "class_embeddings_concat": False,
    "addition_embed_type": None,
    "resnet_time_scale_shift": "default",
    "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
    "time_cond_proj_dim": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "cross_attention_norm": None,
}
"""Settings that alter the network and that no Stable Diffusion 1 or 2 has; a config may state only these values."""

_AUTOENCODER_DEFAULTS: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "norm_num_groups": 32,
    "scaling_factor": 0.18215,
    "pixels": None,
}
_AUTOENCODER_FIXED: dict[str, Any] = {
    "act_fn": "silu",
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


def _require(config: Mapping[str, Any]) -> None:
    if not config:
        raise WeightsError("config.json: missing; name the folder that holds it beside the weights, not their file")


def _check_class(c: ConfigFields, name: str) -> None:
    c.one_of(_class_name=(name, f"Flax{name}"))


def _check_levels(c: ConfigFields, **types: Mapping[str, bool]) -> None:
    """Checks the fields that describe levels; raises WeightsError at once where others cannot be compared with them."""
    c.sizes("layers_per_block", most=DEPTH // LEVELS)
    for name, known in types.items():
        c.lists(name, fits=lambda value, known=known: isinstance(value, str) and value in known, needed=_any_of(known))
    lists = c.lists("block_out_channels", fits=is_size, needed="one whole number above 0")
    if not lists or not c.sizes("norm_num_groups"):
        c.stop()
    widths, groups = c["block_out_channels"], c["norm_num_groups"]
    fits = [name for name in types if isinstance(c[name], list | tuple)]
    c.check(fits, lambda value: len(value) == len(widths), f"one for each of block_out_channels = {shown(widths)}")
    divides = all(width % groups == 0 for width in widths)
    c.check(["norm_num_groups"], lambda _: divides, f"a divisor of each of block_out_channels = {shown(widths)}")


def _any_of(known: Mapping[str, bool]) -> str:
    return f"one of {', '.join(known)}"


def _type_of(types: Mapping[str, bool], attention: bool) -> str:
    return next(name for name, has in types.items() if has == attention)
