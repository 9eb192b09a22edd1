"""Settings of INP-Former."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import Blocks, at_least, make_preset, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: INP-Former"
_TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "optimizer": "stable-adamw",
    "schedule": "cosine",
    "final_rate": 0.1,
    "clip_norm": 0.1,
    "weight_decay": 1e-4,
}


@dataclass(frozen=True)
class INPFormerConfig(FrozenFeatures):
    """INP-Former: normal prototypes drawn from the image itself restore its features (arXiv 2503.02424).

    The preset "paper" is the published setting for many categories. "small" takes the features of DPDiff-AD's preset of
    that name, for CPUs and tests.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "prototypes", "depth")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    backbone: str = setting("facebook/dinov2-with-registers-base", source="paper")
    """Frozen Vision Transformer: a folder, file or Hugging Face id (ORG/NAME or ORG/NAME@REVISION), or "embedded", the
    ViT-S/14 of the `demo` extra."""
    blocks: Blocks = setting(
        (2, 3, 4, 5, 6, 7, 8, 9),
        source=_PUBLIC,
        reason="the middle 8 of 12; of ViT-L it takes every second from 4 to 18",
    )
    """Blocks, counted from 0, that are reconstructed: numbers, "middle" third, or None for the last half."""
    image_size: int = setting(
        392,
        source="paper",
        reason="published are the central 392 of 448 pixels, here the whole image",
        decision="dinomaly-margins",
    )
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    groups: int = setting(2, source="paper")
    """Groups of blocks, shallow to deep, whose means are reconstructed."""
    prototypes: int = setting(6, source="paper")
    """Normal prototypes that are drawn from each image."""
    coherence: float = setting(0.2, source="paper")
    """Weight in the loss of the distance of patches to their nearest prototype."""
    mining: float = setting(3.0, source="paper")
    """Power of a patch's distance over the mean that its gradient is multiplied by; 0 for none."""
    depth: int = setting(8, source="paper")
    """Blocks of the decoder."""
    heads: int | None = setting(None, source=_PUBLIC, reason="6 of 384, 12 of 768, 16 of 1,024 channels")
    """Attention heads; None for as many as there are 64 channels."""
    mlp_ratio: float = setting(4.0, source=_PUBLIC, reason="as ViTs have it")
    """Width of bottleneck and feed-forward layers over the feature width."""
    score: Literal["top", "protocol"] = setting(
        "top", source=_PUBLIC, reason="as Dinomaly's", decision="dinomaly-image-score"
    )
    """Image score: mean of the highest 1 % of the map, or what the protocol takes of detectors without their own."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name: 200 epochs of MVTec-AD, or 800 steps.

        Raises:
            ConfigError: no preset has that name.
        """
        paper = {**_TRAINING, "steps": 45_200, "learning_rate": 1e-3, "warmup_steps": 100, "sampling": "size"}
        small = {**_TRAINING, "steps": 800, "learning_rate": 2e-3, "warmup_steps": 50, "checkpoint_every": 250}
        return make_preset(TrainConfig, name, {"paper": paper, "small": small}, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("groups", "prototypes", "depth", "heads", "mlp_ratio"))
        problems += at_least(self, 0, ("coherence", "mining"))
        if self.groups >= 1 and self.depth % self.groups:
            problems.append(f"depth = {self.depth}: must be a multiple of groups = {self.groups}")
        return problems
