"""EfficientNets as backbones."""

from __future__ import annotations

from typing import Any

from jaxad.models.convnets.efficientnet import SCALES, EfficientNet, EfficientNetConfig, abstract_efficientnet
from jaxad.models.convnets.efficientnet_checkpoints import is_efficientnet, load_efficientnet
from jaxad.models.family import Family, register_backbone
from jaxad.models.weights.loader import Weights
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization

_RANDOM = {f"efficientnet_{scale}": scale for scale in SCALES}


@register_backbone
class EfficientNets(Family):
    """EfficientNet B0 to B7 and Lite 0 to 4 in files of transformers, timm, torchvision and TensorFlow's converts."""

    name = "efficientnet"
    config = EfficientNetConfig
    random_names = tuple(_RANDOM)

    @staticmethod
    def abstract(config: EfficientNetConfig, dtype: Any) -> EfficientNet:
        return abstract_efficientnet(config, dtype)

    @staticmethod
    def recognizes(weights: Weights) -> bool:
        return is_efficientnet(weights)

    @staticmethod
    def load(weights: Weights, dtype: Any, interpolation: object) -> EfficientNet:
        return load_efficientnet(weights, dtype)

    @staticmethod
    def normalization(weights: Weights, network: EfficientNet) -> Normalization:
        """TensorFlow's Lite networks were trained on images from -1 to 1."""
        return INCEPTION if network.config.lite and network.config.padding == "same" else IMAGENET

    @staticmethod
    def random(name: str) -> EfficientNetConfig | None:
        return EfficientNetConfig.published(_RANDOM[name]) if name in _RANDOM else None
