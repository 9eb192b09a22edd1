"""Settings that Dinomaly and INP-Former have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import Blocks, at_least, setting
from jaxad.config.frozen_features import TrainedFeatures
from jaxad.config.training import SMALL_TRAINING

_PUBLIC = "published code: Dinomaly"

TRAINING: Mapping[str, Any] = {
    "batch_size": 16,
    "optimizer": "stable-adamw",
    "schedule": "cosine",
    "final_rate": 0.1,
    "clip_norm": 0.1,
    "weight_decay": 1e-4,
}
"""What both take for every preset."""
PAPER_TRAINING: Mapping[str, Any] = {**TRAINING, "warmup_steps": 100}
SHORT_TRAINING: Mapping[str, Any] = {**TRAINING, **SMALL_TRAINING, "learning_rate": 2e-3}


@dataclass(frozen=True)
class BlockGroups(TrainedFeatures):
    """Groups of blocks of a ViT, and the decoder that restores them. Base of the settings of these detectors."""

    backbone: str = setting("facebook/dinov2-with-registers-base", source="paper")
    """Frozen Vision Transformer: a folder, file or Hugging Face id (ORG/NAME or ORG/NAME@REVISION), or "embedded", the
    ViT-S/14 of the `demo` extra."""
    blocks: Blocks = setting(
        (2, 3, 4, 5, 6, 7, 8, 9),
        source=_PUBLIC,
        reason="the middle 8 of 12; of ViT-L it takes every second from 4 to 18; INP-Former's code does the same",
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
    depth: int = setting(8, source="paper")
    """Blocks of the decoder."""
    heads: int | None = setting(
        None, source=_PUBLIC, reason="6 of 384, 12 of 768, 16 of 1,024 channels; INP-Former's code does the same"
    )
    """Attention heads; None for as many as leave 64 channels or more to each."""
    mlp_ratio: float = setting(4.0, source=_PUBLIC, reason="the papers give none; INP-Former's code has the same")
    """Width of bottleneck and feed-forward layers over the feature width."""
    score: Literal["top", "protocol"] = setting(
        "top",
        source=_PUBLIC,
        reason="as its paper says; INP-Former's code does the same",
        decision="dinomaly-image-score",
    )
    """Image score: mean of the highest 1 % of the map, or what the protocol takes of detectors without their own."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("groups", "depth", "heads", "mlp_ratio"))
        if self.groups >= 1 and self.depth % self.groups:
            problems.append(f"depth = {self.depth}: must be a multiple of groups = {self.groups}")
        return problems
