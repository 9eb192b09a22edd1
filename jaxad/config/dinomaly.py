"""Settings of Dinomaly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import Blocks, at_least, make_preset, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: Dinomaly"
_TRAINING: dict[str, Any] = {
    "batch_size": 16,
    "optimizer": "stable-adamw",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "final_rate": 0.1,
    "clip_norm": 0.1,
    "weight_decay": 1e-4,
}


@dataclass(frozen=True)
class DinomalyConfig(FrozenFeatures):
    """Dinomaly: reconstruction of frozen features by a decoder that cannot focus (arXiv 2405.14325).

    The preset "paper" is the published setting for MVTec-AD and VisA. "small" takes the features of DPDiff-AD's preset
    of that name, for CPUs and tests.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "dropout", "depth")
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
    dropout: float = setting(0.2, source="paper", reason="0.4 for Real-IAD")
    """Share of the bottleneck's values that training sets to 0."""
    depth: int = setting(8, source="paper")
    """Blocks of the decoder."""
    heads: int | None = setting(None, source=_PUBLIC, reason="6 of 384, 12 of 768, 16 of 1,024 channels")
    """Attention heads of the decoder; None for as many as there are 64 channels."""
    mlp_ratio: float = setting(4.0, source=_PUBLIC, reason="the paper gives none")
    """Width of bottleneck and feed-forward layers over the feature width."""
    easy_share: float = setting(0.9, source=_PUBLIC, reason="the paper says that easy points weigh less")
    """Share of the points of a batch that are taken for easy, the ones restored best."""
    easy_gradient: float = setting(0.1, source=_PUBLIC, reason="the paper says that easy points weigh less")
    """What the gradient of easy points is multiplied by."""
    easy_steps: int = setting(1000, source=_PUBLIC, reason="the paper gives none")
    """Steps over which the share of easy points grows from 0."""
    score: Literal["top", "protocol"] = setting("top", source="paper", decision="dinomaly-image-score")
    """Image score: mean of the highest 1 % of the map, or what the protocol takes of detectors without their own."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name: 10,000 steps (50,000 for Real-IAD), or 800.

        Raises:
            ConfigError: no preset has that name.
        """
        paper = {**_TRAINING, "steps": 10_000, "warmup_steps": 100, "sampling": "size"}
        small = {**_TRAINING, "steps": 800, "warmup_steps": 50, "checkpoint_every": 250}
        return make_preset(TrainConfig, name, {"paper": paper, "small": small}, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("groups", "depth", "heads", "mlp_ratio", "easy_steps"))
        problems += at_least(self, 0, ("easy_gradient",))
        problems += [
            f"{name} = {value}: must be 0, or a share below 1"
            for name, value in (("dropout", self.dropout), ("easy_share", self.easy_share))
            if not 0 <= value < 1
        ]
        if self.groups >= 1 and self.depth % self.groups:
            problems.append(f"depth = {self.depth}: must be a multiple of groups = {self.groups}")
        return problems
