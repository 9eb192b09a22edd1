"""Vision Transformers as backbones: DINOv2 with and without registers, DINO, supervised ViT."""

from __future__ import annotations

import re
from typing import Any

from jaxad.models.family import Family, register_backbone
from jaxad.models.vit.checkpoints import is_vit
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import ViT, abstract_vit, load_vit
from jaxad.models.weights.loader import Weights
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization
from jaxad.nn.positions import Interpolation


@register_backbone
class VisionTransformers(Family):
    """Files of transformers, timm and the authors of DINO and DINOv2."""

    name = "vit"
    config = ViTConfig
    random_names = ("WIDTHxDEPTH", "WIDTHxDEPTHxPATCH")

    @staticmethod
    def abstract(config: ViTConfig, dtype: Any) -> ViT:
        return abstract_vit(config, dtype)

    @staticmethod
    def recognizes(weights: Weights) -> bool:
        return is_vit(weights)

    @staticmethod
    def load(weights: Weights, dtype: Any, interpolation: Interpolation | None) -> ViT:
        return load_vit(weights, dtype, interpolation)

    @staticmethod
    def normalization(weights: Weights, network: ViT) -> Normalization:
        """Networks with a classifier are supervised, and most authors trained those on images from -1 to 1."""
        supervised = not weights.tensors.keys().isdisjoint(("head.weight", "classifier.weight"))
        return INCEPTION if supervised and "architecture" not in weights.config else IMAGENET

    @staticmethod
    def random(name: str) -> ViTConfig | None:
        match = re.fullmatch(r"(\d+)x(\d+)(?:x(\d+))?", name)
        if not match or 0 in (numbers := [int(number) for number in match.groups("14")]):
            return None
        width, depth, patch = numbers
        heads = width // 16 if width % 16 == 0 else 1
        return ViTConfig(width, depth, heads, patch, image_size=16 * patch, hidden=4 * width)
