"""ResNet 18, 34, 50 and 101 (arXiv 1512.03385) in the form v1.5, which halves in a bottleneck's 3x3 convolution."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.errors import WeightsError
from jaxad.models.convnets.convolution import ConvNet, ConvNorm, max_pool
from jaxad.models.weights.config_fields import DEPTH, ConfigFields, is_size, plausible_depth, shown
from jaxad.models.weights.key_map import BATCH_NORM, CONV, KeyMap, fill
from jaxad.models.weights.loader import Weights
from jaxad.types import Array

LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Number of layers of the published networks -> blocks of each stage."""


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of a ResNet; the defaults are those of ResNet-50."""

    stem: int = 64
    """Channels of the first convolution."""
    widths: tuple[int, ...] = (256, 512, 1024, 2048)
    """Channels of each stage's output."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of each stage."""
    bottleneck: bool = True
    """Blocks of 1x1, 3x3 and 1x1 convolutions, a quarter as wide inside; else of two 3x3 convolutions."""
    norm_eps: float = 1e-5
    """Epsilon of every batch norm."""

    @classmethod
    def resnet(cls, layers: int) -> ResNetConfig:
        """The published network of 18, 34, 50 or 101 layers."""
        bottleneck = layers >= 50
        widths = (256, 512, 1024, 2048) if bottleneck else (64, 128, 256, 512)
        return cls(64, widths, LAYERS[layers], bottleneck)

    @classmethod
    def from_huggingface(cls, config: Mapping[str, Any]) -> ResNetConfig:
        """The shape that a Hugging Face config.json describes; fields it lacks have that class's default.

        Raises:
            WeightsError: settings this network does not have, all of them named.
        """
        defaults = {"embedding_size": 64, "hidden_sizes": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3)}
        needed = {
            "num_channels": 3,
            "hidden_act": "relu",
            "downsample_in_first_stage": False,
            "downsample_in_bottleneck": False,
        }
        c = ConfigFields("config.json", config, {"layer_type": "bottleneck", **defaults, **needed})
        c.one_of(**{name: (value,) for name, value in needed.items()}, layer_type=("basic", "bottleneck"))
        c.sizes("embedding_size")
        fit = c.lists("hidden_sizes", fits=is_size, needed="one whole number above 0")
        fit &= c.lists("depths", fits=lambda value: is_size(value, most=DEPTH), needed=f"one from 1 to {DEPTH}")
        if fit and (len(c["hidden_sizes"]) != len(c["depths"]) or len(c["depths"]) < 3):
            sizes = f"{shown(c['hidden_sizes'])}, {shown(c['depths'])}"
            c.problems.append(f"hidden_sizes, depths = {sizes}: need 3 or more stages, both")
        c.stop()
        widths, depths = tuple(c["hidden_sizes"]), tuple(c["depths"])
        return cls(c["embedding_size"], widths, depths, c["layer_type"] == "bottleneck")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Any]) -> ResNetConfig:
        """The shape of a file in the layout of torchvision and timm."""
        bottleneck = "layer1.0.conv3.weight" in tensors
        last = "conv3" if bottleneck else "conv2"
        widths, depths = [], []
        for stage in itertools.takewhile(lambda n: f"layer{n}.0.{last}.weight" in tensors, itertools.count(1)):
            blocks = itertools.takewhile(lambda b, s=stage: f"layer{s}.{b}.{last}.weight" in tensors, itertools.count())
            widths.append(tensors[f"layer{stage}.0.{last}.weight"].shape[0])
            depths.append(plausible_depth(sum(1 for _ in blocks), f"layer{stage}"))
        plausible_depth(len(depths), "layer1, layer2 ...")
        return cls(tensors["conv1.weight"].shape[0], tuple(widths), tuple(depths), bottleneck)


class ResNet(ConvNet):
    """ResNet without its classifier.

    Args:
        config: its shape.
        dtype: compute type; parameters are float32, norms and activations run in float32.
    """

    def __init__(self, config: ResNetConfig, *, dtype: Any = jnp.float32):
        settings: dict[str, Any] = {"eps": config.norm_eps, "dtype": dtype}
        self.config = config
        self.widths = config.widths
        self.strides = tuple(4 * 2**stage for stage in range(len(config.widths)))
        self.conv = ConvNorm(3, config.stem, 7, 2, activation=jax.nn.relu, **settings)
        stages, inputs = [], config.stem
        for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResidualBlock(inputs, width, stride, config.bottleneck, **settings))
                inputs = width
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)

    def __call__(self, images: Array, taps: Collection[int] = ()) -> tuple[jax.Array, dict[int, jax.Array]]:
        """The whole network.

        Args:
            images: normalized images, float [b h w 3].
            taps: numbers of the stages, from 0, whose outputs are wanted too.

        Returns:
            The last stage's output [b h/32 w/32 c], and that of each stage in `taps` by its number; strides are 4, 8,
            16, 32.
        """
        last = len(self.stages) - 1
        tapped = self.taps(images, {*taps, last})
        return tapped[last], {stage: tapped[stage] for stage in taps}

    def stem(self, images: Array) -> jax.Array:
        """7x7 convolution and 3x3 maximum, [b h w 3] -> [b h/4 w/4 c]."""
        return max_pool(self.conv(jnp.asarray(images)), 3, 2)


class ResidualBlock(nnx.Module):
    """relu(shortcut(x) + convs(x)); the shortcut is a 1x1 convolution where width or stride change.

    Args:
        inputs, outputs: channels.
        stride: of the 3x3 convolution, the first where there are two, and of the shortcut.
        bottleneck: three convolutions, else two.
        settings: of every convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, bottleneck: bool, **settings: Any):
        relu = jax.nn.relu
        if bottleneck:
            inner = outputs // 4
            convs = [
                ConvNorm(inputs, inner, activation=relu, **settings),
                ConvNorm(inner, inner, 3, stride, activation=relu, **settings),
                ConvNorm(inner, outputs, **settings),
            ]
        else:
            convs = [
                ConvNorm(inputs, outputs, 3, stride, activation=relu, **settings),
                ConvNorm(outputs, outputs, 3, **settings),
            ]
        self.convs = nnx.List(convs)
        changes = inputs != outputs or stride != 1
        self.shortcut = ConvNorm(inputs, outputs, 1, stride, **settings) if changes else None

    def __call__(self, x: jax.Array) -> jax.Array:
        y = x
        for conv in self.convs:
            y = conv(y)
        return jax.nn.relu(y + (self.shortcut(x) if self.shortcut else x))


TORCHVISION: KeyMap = (
    ("conv", "conv1", CONV),
    ("conv/norm", "bn1", BATCH_NORM),
    *(
        row
        for stage in range(4)
        for conv in range(3)
        for row in (
            (f"stages/{stage}/{{}}/convs/{conv}", f"layer{stage + 1}.{{}}.conv{conv + 1}", CONV),
            (f"stages/{stage}/{{}}/convs/{conv}/norm", f"layer{stage + 1}.{{}}.bn{conv + 1}", BATCH_NORM),
            (f"stages/{stage}/{{}}/shortcut", f"layer{stage + 1}.{{}}.downsample.0", CONV),
            (f"stages/{stage}/{{}}/shortcut/norm", f"layer{stage + 1}.{{}}.downsample.1", BATCH_NORM),
        )
    ),
)
"""Files of torchvision and timm."""

HUGGINGFACE: KeyMap = (
    ("conv", "embedder.embedder.convolution", CONV),
    ("conv/norm", "embedder.embedder.normalization", BATCH_NORM),
    ("stages/{}/{}/convs/{}", "encoder.stages.{}.layers.{}.layer.{}.convolution", CONV),
    ("stages/{}/{}/convs/{}/norm", "encoder.stages.{}.layers.{}.layer.{}.normalization", BATCH_NORM),
    ("stages/{}/{}/shortcut", "encoder.stages.{}.layers.{}.shortcut.convolution", CONV),
    ("stages/{}/{}/shortcut/norm", "encoder.stages.{}.layers.{}.shortcut.normalization", BATCH_NORM),
)
"""Files of transformers, below "resnet." where they hold a classifier too."""

UNUSED = ("*.num_batches_tracked", "fc.*", "classifier.*")
"""Tensors of such files that features do not depend on."""


def is_resnet(weights: Weights) -> bool:
    """Whether these are of a ResNet, by their config.json or, without one, by their names."""
    config = weights.config
    if "model_type" in config or "architecture" in config:
        name = str(config.get("architecture", ""))
        return config.get("model_type") == "resnet" or re.fullmatch(r"resnet\d+", name) is not None
    return "layer1.0.conv1.weight" in weights.tensors


def load_resnet(weights: Weights, dtype: Any = jnp.float32) -> ResNet:
    """The network that `weights` hold, its shape taken from config.json or, in torchvision's layout, from the tensors.

    Args:
        weights: what `find_weights` found.
        dtype: compute type.

    Raises:
        WeightsError: a config of another network, or weights that do not fit it.
    """
    if weights.config.get("model_type") == "resnet":
        config, key_map = ResNetConfig.from_huggingface(weights.config), HUGGINGFACE
        weights = weights.under("resnet.") if weights.has("resnet.") else weights
    elif "layer1.0.conv1.weight" in weights.tensors and "conv1.weight" in weights.tensors:
        config, key_map = ResNetConfig.from_tensors(weights.tensors), TORCHVISION
    else:
        raise WeightsError(f"{weights}: no ResNet in the layout of torchvision or timm; conv1.weight is missing")
    weights.check_blocks(sum(config.depths))
    return fill(abstract_resnet(config, dtype), weights, key_map, ignore=UNUSED)


def abstract_resnet(config: ResNetConfig, dtype: Any = jnp.float32) -> ResNet:
    """The network's structure without arrays, to be filled."""
    return nnx.eval_shape(lambda: ResNet(config, dtype=dtype))
