"""The programs of DPDiff-AD that its benchmark is about, from a detector without arrays."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench._account import batch_of, drawn
from jaxad.config import DPDiffConfig, TrainConfig, to_json
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.inference.predictor import Predictor
from jaxad.models.vit.config import ViTConfig
from jaxad.nn.normalization import IMAGENET
from jaxad.training.step import DetectorTrainer
from jaxad.types import Features

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


def prediction(detector: DPDiff, batch_size: int, mesh: Mesh) -> jax.stages.Traced:
    """The whole prediction of a batch of uint8 images: frozen network, reconstruction, map and score."""
    return Predictor(detector, PROTOCOL, batch_size=batch_size, mesh=mesh).trace(batch_of(detector, batch_size))


def training_step(detector: DPDiff, batch_size: int, mesh: Mesh) -> jax.stages.Traced:
    """The optimizer step on the cached features of a batch."""
    config = TrainConfig(batch_size=batch_size, fsdp=mesh.shape["fsdp"])
    parallel.check_batch_size(batch_size, mesh)
    rows, columns = detector.grid
    tokens: Any = jax.ShapeDtypeStruct((batch_size, rows * columns, detector.channels), jnp.float32)
    return DetectorTrainer(detector, config, mesh).trace(Features(tokens, detector.grid))
