"""DPDiff-AD of any size without arrays, and with random ones."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.bench._account import drawn
from jaxad.config import DPDiffConfig, to_json
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.models.vit.config import ViTConfig
from jaxad.nn.cosine import unit
from jaxad.nn.normalization import IMAGENET

BackboneName = Literal["dinov2-small", "dinov2-base", "dinov2-large", "dinov2-reg-base", "dino-base-8", "tiny"]
Preset = Literal["paper", "small", "retrieval"]
BACKBONES: dict[str, ViTConfig] = {
    "dinov2-small": ViTConfig.dinov2("small"),
    "dinov2-base": ViTConfig.dinov2("base"),
    "dinov2-large": ViTConfig.dinov2("large"),
    "dinov2-reg-base": ViTConfig.dinov2("base", registers=4),
    "dino-base-8": ViTConfig.dino("base", patch=8),
    "tiny": ViTConfig(width=128, depth=2, heads=2, patch=14, image_size=224, hidden=256),
}
"""Shapes of the frozen networks; "tiny" is for tests."""
PRESETS: dict[Preset, BackboneName] = {
    "paper": "dinov2-reg-base",
    "small": "dinov2-small",
    "retrieval": "dinov2-small",
}
"""Presets of `DPDiffConfig`, and the shapes of their frozen networks."""
IMAGES = 1000
"""Images of which the retrieval denoiser is taken to remember patches, as many of each."""
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
    detector = DPDiff.abstract(config, {**record, "dtype": dtype, "id": backbone, "sha256": "", "bytes": 0})
    if (nearby := detector.nearby) is not None:
        width, shape = len(nearby.variances), jax.ShapeDtypeStruct
        patches = (IMAGES, config.memory // IMAGES)
        nearby.patches.set_value(shape((*patches, width), jnp.float16))
        nearby.descriptors.set_value(shape((IMAGES, width), jnp.float32))
        nearby.places.set_value(shape(patches, jnp.int32))
        nearby.residuals.set_value(shape(patches if config.expects else (1,), jnp.float32))
    return detector


def drawn_dpdiff(detector: DPDiff) -> DPDiff:
    """A detector that has no arrays, with random weights, and features that are taken to be standardized."""
    filled = drawn(detector)
    filled.channel_mean[...] = np.zeros(detector.channels, np.float32)
    filled.channel_std[...] = np.ones(detector.channels, np.float32)
    if filled.nearby is not None:
        # Images would else count as copies of each other.
        filled.nearby.descriptors.set_value(unit(filled.nearby.descriptors[...]))
    return filled
