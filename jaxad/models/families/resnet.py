"""ResNets as backbones."""

from __future__ import annotations

from typing import Any

from jaxad.models.convnets.resnet import LAYERS, ResNet, ResNetConfig, abstract_resnet, is_resnet, load_resnet
from jaxad.models.family import Family, register_backbone
from jaxad.models.weights.loader import Weights

_RANDOM = {f"resnet{layers}": layers for layers in LAYERS}


@register_backbone
class ResNets(Family):
    """ResNet 18 to 101 in files of transformers, timm and torchvision."""

    name = "resnet"
    config = ResNetConfig
    random_names = tuple(_RANDOM)

    @staticmethod
    def abstract(config: ResNetConfig, dtype: Any) -> ResNet:
        return abstract_resnet(config, dtype)

    @staticmethod
    def recognizes(weights: Weights) -> bool:
        return is_resnet(weights)

    @staticmethod
    def load(weights: Weights, dtype: Any, interpolation: object) -> ResNet:
        return load_resnet(weights, dtype)

    @staticmethod
    def random(name: str) -> ResNetConfig | None:
        return ResNetConfig.resnet(_RANDOM[name]) if name in _RANDOM else None
