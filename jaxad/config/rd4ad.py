"""Settings of RD4AD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.fields import Blocks, at_least, setting
from jaxad.config.frozen_features import TrainedFeatures
from jaxad.config.training import SMALL_TRAINING

_PUBLIC = "published code: RD4AD"


@dataclass(frozen=True)
class RD4ADConfig(TrainedFeatures):
    """RD4AD: a student restores a teacher's features, deep ones first, from a compact embedding (arXiv 2201.10703).

    The teacher is a Vision Transformer, not a wide ResNet-50, and three of its blocks stand for three stages. "small"
    has one convolutional block for each stage, for CPUs and tests. "paper" trains for 200 epochs of MVTec-AD.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "embedding_depth", "depths")
    PRESETS: ClassVar = {"paper": {}, "small": {"backbone": "embedded", "embedding_depth": 1, "depths": (1, 1, 1)}}
    TRAININGS: ClassVar = {
        "paper": {"steps": 45_400, "batch_size": 16, "learning_rate": 5e-3},
        "small": {**SMALL_TRAINING, "learning_rate": 2e-3, "clip_norm": 1.0},
    }

    blocks: Blocks = setting(
        (2, 5, 8),
        source="jaxad",
        reason="the ends of three quarters of a ViT's 12 blocks, which ViTAD restores",
        decision="rd4ad-stages",
    )
    """Blocks, counted from 0, that are restored: numbers, "middle" third, or None for the last half."""
    image_size: int = setting(
        224, source="jaxad", reason="published are 256 pixels, whose deepest stage has as many places, 16 x 16"
    )
    """Side in pixels of the square input; an even multiple of the backbone's patch."""
    embedding_depth: int = setting(3, source=_PUBLIC, reason="of a wide ResNet-50")
    """Convolutional blocks of the one-class embedding."""
    depths: tuple[int, ...] = setting((3, 4, 6), source=_PUBLIC, reason="of a wide ResNet-50")
    """Convolutional blocks of the student for each restored block of the teacher, the deepest first."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("embedding_depth",))
        if not self.depths or min(self.depths) < 1:
            problems.append(f"depths = {self.depths}: must be one number or more, each at least 1")
        return problems
