"""Settings of ViTAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.fields import Blocks, at_least, repeated_blocks, setting
from jaxad.config.frozen_features import TrainedFeatures
from jaxad.config.training import SMALL_TRAINING

_PUBLIC = "published code: ADer"


@dataclass(frozen=True)
class ViTADConfig(TrainedFeatures):
    """ViTAD: a plain Vision Transformer restores another's blocks from its last one (arXiv 2312.07495).

    On the ViT of the other detectors, not DINO's ViT-S/16. The presets "paper" and "small" differ in it and in the
    training: 100 epochs of MVTec-AD, or 800 steps.
    """

    MAIN: ClassVar = ("backbone", "blocks", "neck", "image_size", "depth")
    PRESETS: ClassVar = {"paper": {}, "small": {"backbone": "embedded"}}
    TRAININGS: ClassVar = {
        "paper": {"steps": 45_400, "batch_size": 8, "learning_rate": 1e-4, "weight_decay": 1e-4},
        "small": {**SMALL_TRAINING, "learning_rate": 1e-3, "weight_decay": 1e-4, "clip_norm": 1.0},
    }

    blocks: Blocks = setting((2, 5, 8), source="paper", reason="the third, sixth and ninth of 12")
    """Blocks, counted from 0, that are restored: numbers, "middle" third, or None for the last half."""
    neck: tuple[int, ...] = setting((11,), source="paper", reason="the last of 12")
    """Blocks, counted from 0, that the decoder sees."""
    image_size: int = setting(
        224, source="jaxad", reason="16 x 16 patches, as published with 256 pixels", decision="vitad-network"
    )
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    depth: int = setting(9, source="paper")
    """Blocks of the decoder, as many for each restored block."""
    heads: int | None = setting(None, source=_PUBLIC, reason="6 of 384, 12 of 768, 16 of 1,024 channels")
    """Attention heads of the decoder; None for as many as leave 64 channels or more to each."""
    mlp_ratio: float = setting(4.0, source=_PUBLIC, reason="as ViTs have it")
    """Width of the feed-forward layers over the feature width."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("depth", "heads", "mlp_ratio"))
        return problems + [line.replace("blocks", "neck", 1) for line in repeated_blocks(self.neck)]
