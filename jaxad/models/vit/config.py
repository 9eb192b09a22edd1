"""Shapes of Vision Transformers: presets, and what a Hugging Face config.json says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.weights.config_fields import ConfigFields, shown
from jaxad.nn.positions import Interpolation

_SIZES = {"small": (384, 12, 6), "base": (768, 12, 12), "large": (1024, 24, 16), "giant": (1536, 40, 24)}
"""Width, depth and heads of the sizes that several families share."""

_SHARED = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "hidden_act": "gelu",
    "image_size": 224,
    "num_channels": 3,
    "qkv_bias": True,
}
_DINOV2 = {**_SHARED, "mlp_ratio": 4, "layer_norm_eps": 1e-6, "use_swiglu_ffn": False}
_DEFAULTS = {
    "dinov2": {**_DINOV2, "patch_size": 14},
    "dinov2_with_registers": {**_DINOV2, "patch_size": 16, "num_register_tokens": 4},
    "vit": {**_SHARED, "patch_size": 16, "intermediate_size": 3072, "layer_norm_eps": 1e-12},
}
"""The fields that each Hugging Face class reads, and what it takes for one that config.json lacks."""
MODEL_TYPES = tuple(_DEFAULTS)
"""Values of `model_type` in the config.json of Vision Transformers that are known here."""


@dataclass(frozen=True)
class ViTConfig:
    """Shape of a Vision Transformer; the defaults are those of DINOv2-B/14."""

    width: int = 768
    """Channels c of a token."""
    depth: int = 12
    """Number of blocks."""
    heads: int = 12
    """Attention heads of a block."""
    patch: int = 14
    """Side of a patch in pixels."""
    image_size: int = 518
    """Side in pixels of the images whose grid the learned positions describe; any other size is interpolated."""
    hidden: int = 3072
    """Width of the feed-forward layer."""
    swiglu: bool = False
    """Feed-forward layer gated by SiLU (DINOv2-g) in place of GELU."""
    registers: int = 0
    """Number of register tokens between class token and patches."""
    layer_scale: bool = True
    """Learned gain per channel on both branches of a block."""
    qkv_bias: bool = True
    """Bias of the query, key and value projections."""
    norm_eps: float = 1e-6
    """Epsilon of every layer norm."""
    interpolation: Interpolation = "bicubic"
    """How positions are resized to other grids."""

    @classmethod
    def dinov2(cls, size: str = "base", registers: int = 0) -> ViTConfig:
        """DINOv2, patch 14, as Hugging Face runs it.

        Args:
            size: "small", "base", "large" or "giant".
            registers: 0 or 4.

        Source: arXiv 2304.07193, 2309.16588.
        """
        width, depth, heads = _size(size, ("small", "base", "large", "giant"))
        return cls(
            width=width,
            depth=depth,
            heads=heads,
            hidden=_swiglu_width(width, 4) if size == "giant" else 4 * width,
            swiglu=size == "giant",
            registers=registers,
            interpolation="antialias" if registers else "bicubic",
        )

    @classmethod
    def dino(cls, size: str = "small", patch: int = 8) -> ViTConfig:
        """DINO (v1) as its authors run it: positions resized with scale (new + 0.1) / old.

        Args:
            size: "small" or "base".
            patch: 8 or 16.

        Source: arXiv 2104.14294.
        """
        return cls._plain(*_size(size, ("small", "base")), patch=patch, interpolation="dinomaly")

    @classmethod
    def vit(cls, size: str = "base", image_size: int = 224) -> ViTConfig:
        """The supervised ViT, patch 16, as Hugging Face runs it.

        Args:
            size: "base" or "large".
            image_size: 224 or 384.

        Source: arXiv 2010.11929.
        """
        return cls._plain(*_size(size, ("base", "large")), image_size=image_size, norm_eps=1e-12)

    @classmethod
    def _plain(cls, width: int, depth: int, heads: int, **others: Any) -> ViTConfig:
        shape: dict[str, Any] = {"patch": 16, "image_size": 224, "layer_scale": False, **others}
        return cls(width=width, depth=depth, heads=heads, hidden=4 * width, **shape)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> ViTConfig:
        """The shape that a Hugging Face config.json describes; fields it lacks have that model class's default.

        Positions are resized as transformers does (for model type "vit", when told to with interpolate_pos_encoding).

        Raises:
            WeightsError: another model type, or settings this network does not have, all of them named.
        """
        model_type = ConfigFields("config.json", config, {}).get("model_type")
        if not isinstance(model_type, str) or model_type not in _DEFAULTS:
            raise WeightsError(
                f"config.json: model_type = {shown(model_type)} is no Vision Transformer known here; "
                f"must be one of {', '.join(_DEFAULTS)}"
            )
        known = _DEFAULTS[model_type]
        c = ConfigFields("config.json", {name: config.get(name, default) for name, default in known.items()}, {})
        _check(c)
        width, swiglu = c["hidden_size"], c.get("use_swiglu_ffn", False)
        if model_type == "vit":
            hidden = c["intermediate_size"]
        else:
            hidden = _swiglu_width(width, c["mlp_ratio"]) if swiglu else int(width * c["mlp_ratio"])
        return cls(
            width=width,
            depth=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            patch=c["patch_size"],
            image_size=c["image_size"],
            hidden=hidden,
            swiglu=swiglu,
            registers=c.get("num_register_tokens", 0),
            layer_scale=model_type != "vit",
            qkv_bias=c["qkv_bias"],
            norm_eps=c["layer_norm_eps"],
            interpolation="antialias" if model_type == "dinov2_with_registers" else "bicubic",
        )


def _size(size: str, allowed: Sequence[str]) -> tuple[int, int, int]:
    if size not in allowed:
        raise ConfigError(f"size = {size!r}: must be one of {', '.join(allowed)}")
    return _SIZES[size]


def _check(c: ConfigFields) -> None:
    """Raises WeightsError naming all fields of a config.json that no such network has; defaults are filled in."""
    c.one_of(hidden_act=("gelu",), num_channels=(3,))
    c.depths("num_hidden_layers")
    c.sizes("intermediate_size")
    c.multiple("hidden_size", "num_attention_heads")
    if c.sizes("image_size", "patch_size"):
        c.check(["image_size"], lambda value: value >= c["patch_size"], f"at least patch_size = {c['patch_size']}")
    c.sizes("num_register_tokens", least=0)
    c.numbers("mlp_ratio", "layer_norm_eps")
    c.flags("qkv_bias", "use_swiglu_ffn")
    c.stop()


def _swiglu_width(width: int, ratio: float) -> int:
    """Two thirds of the width of the layer it replaces, rounded up to a multiple of 8."""
    return (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8


PUBLISHED: Mapping[str, tuple[str, ViTConfig]] = {
    **{
        f"DINOv2-{letter}/14{' registers' if registers else ''}": (
            f"facebook/dinov2-{'with-registers-' if registers else ''}{size}",
            ViTConfig.dinov2(size, registers),
        )
        for size, letter in (("small", "S"), ("base", "B"), ("large", "L"), ("giant", "g"))
        for registers in (0, 4)
    },
    **{
        f"DINO {letter}/{patch}": (f"facebook/dino-vit{letter.lower()}{patch}", ViTConfig.dino(size, patch))
        for size, letter in (("small", "S"), ("base", "B"))
        for patch in (16, 8)
    },
    **{
        f"ViT-{letter}/16": (f"google/vit-{size}-patch16-224", ViTConfig.vit(size))
        for size, letter in (("base", "B"), ("large", "L"))
    },
}
"""Name -> hub id and preset of the published Vision Transformers that jaxad is checked against."""
