"""EfficientNet B0 to B7 (arXiv 1905.11946) and EfficientNet-Lite 0 to 4: inverted residual blocks in seven stages."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.models.convnets.convolution import ConvNet, ConvNorm, Padding
from jaxad.models.weights.config_fields import DEPTH, ConfigFields, is_number, shown
from jaxad.types import Array

_KERNELS = (3, 3, 5, 3, 5, 5, 3)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_EXPANSIONS = (1, 6, 6, 6, 6, 6, 6)
WIDTHS = (16, 24, 40, 80, 112, 192, 320)
DEPTHS = (1, 2, 2, 3, 3, 4, 1)
"""Kernel side, stride of the first block, expansion, and B0's width and depth of each stage."""

SCALES = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
    "lite0": (1.0, 1.0),
    "lite1": (1.0, 1.1),
    "lite2": (1.1, 1.2),
    "lite3": (1.2, 1.4),
    "lite4": (1.4, 1.8),
}
"""Factors of width and depth of the published networks."""


@dataclass(frozen=True)
class EfficientNetConfig:
    """Shape of an EfficientNet; the defaults are those of B0 as torchvision and timm train it."""

    stem: int = 32
    """Channels of the first convolution."""
    widths: tuple[int, ...] = WIDTHS
    """Channels of each stage's output."""
    depths: tuple[int, ...] = DEPTHS
    """Blocks of each stage."""
    head: int = 1280
    """Channels of the last convolution."""
    lite: bool = False
    """EfficientNet-Lite: ReLU6 in place of SiLU, no squeeze-and-excitation."""
    padding: Padding = "symmetric"
    """Zeros around convolutions of stride 2; weights do not tell, and wrong ones shift features by up to a pixel."""
    symmetric_blocks: tuple[int, ...] = ()
    """Blocks, counted from 0 over all stages, that pad symmetrically even so (`depthwise_padding` of config.json)."""
    norm_eps: float = 1e-5
    """Epsilon of every batch norm; weights do not tell."""

    @classmethod
    def published(cls, name: str, padding: Padding = "symmetric", norm_eps: float = 1e-5) -> EfficientNetConfig:
        """The network "b0" to "b7", or "lite0" to "lite4" with stem, head and outer stages' depths unscaled."""
        width, depth = SCALES[name]
        lite = name.startswith("lite")
        depths = [math.ceil(depth * number) for number in DEPTHS]
        return cls(
            stem=32 if lite else scaled_width(32, width),
            widths=tuple(scaled_width(channels, width) for channels in WIDTHS),
            depths=(DEPTHS[0], *depths[1:-1], DEPTHS[-1]) if lite else tuple(depths),
            head=1280 if lite else scaled_width(1280, width),
            lite=lite,
            padding=padding,
            norm_eps=norm_eps,
        )

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> EfficientNetConfig:
        """The shape that a Hugging Face config.json describes; fields it lacks have that class's default.

        Raises:
            WeightsError: settings this network does not have, all of them named.
        """
        needed: dict[str, Any] = {
            "num_channels": 3,
            "hidden_act": "swish",
            "squeeze_expansion_ratio": 0.25,
            "kernel_sizes": _KERNELS,
            "strides": _STRIDES,
            "expand_ratios": _EXPANSIONS,
            "in_channels": (32, *WIDTHS[:-1]),
            "out_channels": WIDTHS,
            "num_block_repeats": DEPTHS,
        }
        defaults = {"width_coefficient": 2.0, "depth_coefficient": 3.1, "depth_divisor": 8, "hidden_dim": 2560}
        c = ConfigFields(
            "config.json", config, {**defaults, **needed, "depthwise_padding": (), "batch_norm_eps": 0.001}
        )
        for name, value in needed.items():
            given = tuple(c[name]) if isinstance(c[name], list) else c[name]
            c.check([name], lambda _, same=given == value: same, repr(value))
        c.sizes("hidden_dim")
        c.numbers("batch_norm_eps")
        # Published networks reach 3.1 times the depth and 2 times the width of the smallest.
        scales = ("width_coefficient", "depth_coefficient")
        scaled = c.check(scales, lambda value: is_number(value) and value <= 16, "a number from 0 to 16")
        scaled &= c.sizes("depth_divisor", most=1024)
        padded = c["depthwise_padding"]
        if not isinstance(padded, list | tuple) or len(padded) > DEPTH or not all(type(n) is int for n in padded):
            c.problems.append(f"depthwise_padding = {shown(padded)}: must be a list of numbers of blocks")
        if not scaled:
            c.stop()
        width, divisor = c["width_coefficient"], c["depth_divisor"]
        stem, *widths = (scaled_width(channels, width, divisor) for channels in (32, *WIDTHS))
        # Such a block adds its input in every other library, and does not in transformers.
        if any(stride == 1 and a == b for stride, a, b in zip(_STRIDES, (stem, *widths), widths, strict=False)):
            c.problems.append(f"width_coefficient = {width}: a stage of stride 1 must be wider than the one before")
        c.stop()
        return cls(
            stem=stem,
            widths=tuple(widths),
            depths=tuple(math.ceil(c["depth_coefficient"] * number) for number in DEPTHS),
            head=c["hidden_dim"],
            padding="trailing",
            symmetric_blocks=tuple(c["depthwise_padding"]),
            norm_eps=c["batch_norm_eps"],
        )


class EfficientNet(ConvNet):
    """EfficientNet without its classifier.

    Args:
        config: its shape.
        dtype: compute type; parameters are float32, norms and activations run in float32.
    """

    def __init__(self, config: EfficientNetConfig, *, dtype: Any = jnp.float32):
        activation = jax.nn.relu6 if config.lite else jax.nn.silu
        settings: dict[str, Any] = {"eps": config.norm_eps, "dtype": dtype}
        self.config = config
        self.widths = config.widths
        self.strides = tuple(2 * math.prod(_STRIDES[: stage + 1]) for stage in range(len(_STRIDES)))
        self.conv = ConvNorm(3, config.stem, 3, 2, activation=activation, padding=config.padding, **settings)
        stages, inputs, number = [], config.stem, 0
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            blocks = []
            for index in range(depth):
                block = MBConv(
                    inputs,
                    width,
                    _KERNELS[stage],
                    _STRIDES[stage] if index == 0 else 1,
                    expansion=_EXPANSIONS[stage],
                    squeezes=not config.lite,
                    padding="symmetric" if number in config.symmetric_blocks else config.padding,
                    activation=activation,
                    **settings,
                )
                blocks.append(block)
                inputs, number = width, number + 1
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.head = ConvNorm(inputs, config.head, activation=activation, **settings)

    def __call__(self, images: Array, taps: Collection[int] = ()) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The whole network.

        Args:
            images: normalized images, float [b h w 3].
            taps: numbers of the stages, from 0, whose outputs are wanted too.

        Returns:
            The last convolution's output [b h/32 w/32 c], and that of each stage in `taps` by its number, at strides
            2, 4, 8, 16, 16, 32, 32.
        """
        last = len(self.stages) - 1
        tapped = self.taps(images, {*taps, last})
        return self.head(tapped[last]), {stage: tapped[stage] for stage in taps}

    def stem(self, images: Array) -> jax.Array:
        """3x3 convolution, [b h w 3] -> [b h/2 w/2 c]."""
        return self.conv(jnp.asarray(images))


class MBConv(nnx.Module):
    """Inverted residual block: 1x1 expansion, depthwise convolution, squeeze-and-excitation, 1x1 projection.

    Args:
        inputs, outputs: channels; input and output are added where shape allows.
        size: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: channels inside over `inputs`; at 1 there is no first convolution.
        squeezes: with squeeze-and-excitation.
        padding: of the depthwise convolution.
        activation: of all but the projection.
        settings: of every convolution.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        stride: int,
        *,
        expansion: int,
        squeezes: bool,
        padding: Padding,
        activation: Any,
        **settings: Any,
    ):
        inner = inputs * expansion
        self.adds = stride == 1 and inputs == outputs
        self.expand = ConvNorm(inputs, inner, activation=activation, **settings) if expansion > 1 else None
        self.depthwise = ConvNorm(
            inner, inner, size, stride, depthwise=True, padding=padding, activation=activation, **settings
        )
        self.squeeze = SqueezeExcite(inner, max(1, inputs // 4)) if squeezes else None
        self.project = ConvNorm(inner, outputs, **settings)

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.depthwise(self.expand(x) if self.expand else x)
        y = self.project(self.squeeze(y) if self.squeeze else y)
        return x + y if self.adds else y


class SqueezeExcite(nnx.Module):
    """Gain per image and channel from the channels' means, in float32 (arXiv 1709.01507)."""

    def __init__(self, width: int, inner: int):
        self.reduce = Affine(width, inner)
        self.expand = Affine(inner, width)

    def __call__(self, x: jax.Array) -> jax.Array:
        means = x.astype(jnp.float32).mean((1, 2))
        gain = jax.nn.sigmoid(self.expand(jax.nn.silu(self.reduce(means))))
        return x * gain[:, None, None, :].astype(x.dtype)


class Affine(nnx.Module):
    """[b i] -> [b o], zero until it is loaded."""

    def __init__(self, inputs: int, outputs: int):
        self.kernel = nnx.Param(jnp.zeros((inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel[...] + self.bias[...][None]


def scaled_width(channels: int, factor: float, divisor: int = 8) -> int:
    """Channels times `factor`, rounded to a multiple of `divisor` that is no more than a tenth below."""
    wanted = channels * factor
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def abstract_efficientnet(config: EfficientNetConfig, dtype: Any = jnp.float32) -> EfficientNet:
    """The network's structure without arrays, to be filled."""
    return nnx.eval_shape(lambda: EfficientNet(config, dtype=dtype))
