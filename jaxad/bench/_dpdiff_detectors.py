"""DPDiff-AD of any size without arrays, and with random ones."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from jaxad.bench._account import drawn
from jaxad.config import DPDiffConfig, to_json
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.models.vit.config import ViTConfig
from jaxad.nn.normalization import IMAGENET

BackboneName = Literal["dinov2-small", "dinov2-base", "dinov2-large", "dinov2-reg-base", "dino-base-8", "tiny"]
Preset = Literal["paper", "small"]
BACKBONES: dict[str, ViTConfig] = {
    "dinov2-small": ViTConfig.dinov2("small"),
    "dinov2-base": ViTConfig.dinov2("base"),
    "dinov2-large": ViTConfig.dinov2("large"),
    "dinov2-reg-base": ViTConfig.dinov2("base", registers=4),
    "dino-base-8": ViTConfig.dino("base", patch=8),
    "tiny": ViTConfig(width=128, depth=2, heads=2, patch=14, image_size=224, hidden=256),
}
"""Shapes of the frozen networks; "tiny" is for tests."""
PRESETS: dict[Preset, BackboneName] = {"paper": "dinov2-reg-base", "small": "dinov2-small"}
"""Presets of `DPDiffConfig`, and the shapes of their frozen networks."""
PROTOCOL = "exact-256"


def abstract_dpdiff(
    backbone: str, dtype: Literal["float32", "bfloat16"], *, preset: Preset = "paper", **settings: Any
) -> DPDiff:
    """The detector without arrays.

    Args:
        backbone: one of `BACKBONES`.
        dtype: compute type.
        preset: of `DPDiffConfig`.
        settings: fields of it that are other than the preset's.
    """
    config = DPDiffConfig.preset(preset, precision=dtype, **settings)
    config.check()
    record = {"family": "vit", "shape": to_json(BACKBONES[backbone]), "normalization": to_json(IMAGENET)}
    return DPDiff.abstract(config, {**record, "dtype": dtype, "id": backbone, "sha256": "", "bytes": 0})


def drawn_dpdiff(detector: DPDiff) -> DPDiff:
    """A detector that has no arrays, with random weights, and features that are taken to be standardized."""
    filled = drawn(detector)
    filled.channel_mean[...] = np.zeros(detector.channels, np.float32)
    filled.channel_std[...] = np.ones(detector.channels, np.float32)
    return filled
