"""Small untrained ResNets and EfficientNets, written as each library writes them."""

from __future__ import annotations

import json

import jax
import numpy as np
from safetensors.numpy import save_file

from jaxad.models.backbone import Backbone
from jaxad.models.convnets import efficientnet_checkpoints, resnet
from jaxad.models.convnets.efficientnet import EfficientNetConfig
from jaxad.models.convnets.resnet import ResNetConfig
from jaxad.models.weights.key_map import to_torch

BASIC = ResNetConfig(stem=8, widths=(8, 8, 16, 24), depths=(2, 1, 1, 1), bottleneck=False)
BOTTLENECK = ResNetConfig(stem=8, widths=(16, 32, 48, 64), depths=(2, 1, 1, 1))
SMALL = EfficientNetConfig(stem=8, widths=(8, 16, 24, 32, 40, 48, 56), depths=(1, 2, 1, 1, 1, 1, 1), head=64)
"""Kernels, strides and expansions are those of every EfficientNet."""


def tensors_of(shape, layout, *, prefix="", others=()):
    """A random network of that shape, and its tensors in a layout, with `others` (names) of one value each beside."""
    network = Backbone.random(shape, jax.random.key(0)).network
    if isinstance(shape, ResNetConfig):
        key_map = {"torchvision": resnet.TORCHVISION, "huggingface": resnet.HUGGINGFACE}[layout]
    else:
        key_map = efficientnet_checkpoints.key_map(layout, shape.depths)
    tensors = {prefix + name: tensor for name, tensor in to_torch(network, key_map).items()}
    return network, {**tensors, **{name: np.ones(1, np.float32) for name in others}}


def write_folder(folder, tensors, config, **files):
    """A folder with model.safetensors, config.json and further JSON files."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors")
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder
