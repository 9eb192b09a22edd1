"""Settings of HVQ-Trans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import at_least, make_preset, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: HVQ-Trans"
_MVTEC = "as its code for MVTec-AD says"


@dataclass(frozen=True)
class HVQTransConfig(FrozenFeatures):
    """HVQ-Trans: features are restored from the nearest entries of a hierarchy of codebooks (arXiv 2310.14228).

    On the features of the other detectors, not EfficientNet-b4's. The presets "paper" and "small" differ in these and
    in the training.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "entries", "transport")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    image_size: int = setting(224, source="paper")
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    standardize: Literal["channel", "none"] = setting(
        "channel",
        source="jaxad",
        reason="a few channels of DINOv2 are so large that they would dominate the squared error",
        decision="hvq-trans-features",
    )
    """Feature scaling before reconstruction: fixed per-channel statistics, or none."""
    width: int = setting(256, source=_PUBLIC, reason=_MVTEC)
    """Channels of the encoder; the decoder has twice as many."""
    heads: int = setting(8, source=_PUBLIC, reason=_MVTEC)
    """Attention heads."""
    depth: int = setting(4, source="paper")
    """Layers of the encoder, and as many of the decoder."""
    hidden: int = setting(1024, source=_PUBLIC, reason=_MVTEC)
    """Width of the feed-forward layers."""
    dropout: float = setting(0.1, source=_PUBLIC, reason=_MVTEC)
    """Share of values and of attention weights that training sets to 0."""
    entries: int = setting(512, source="paper", decision="hvq-trans-codebooks")
    """Entries of each codebook."""
    commitment: float = setting(0.25, source=_PUBLIC, reason=_MVTEC)
    """Weight in the loss of the distance of features to their entries."""
    transport: float = setting(80.0, source=_PUBLIC, reason=_MVTEC, decision="hvq-trans-features")
    """Weight in the map of the cost of moving features to the entries of the last codebook; 0 for none."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name: 1,000 epochs of MVTec-AD, or 800 steps.

        Raises:
            ConfigError: no preset has that name.
        """
        shared = {"batch_size": 16, "clip_norm": 0.1, "weight_decay": 1e-4}
        paper = {**shared, "steps": 226_800, "learning_rate": 1e-4, "sampling": "size"}
        small = {**shared, "steps": 800, "learning_rate": 1e-3, "warmup_steps": 50}
        small |= {"schedule": "cosine", "checkpoint_every": 250}
        return make_preset(TrainConfig, name, {"paper": paper, "small": small}, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("width", "heads", "depth", "hidden", "entries"))
        problems += at_least(self, 0, ("commitment", "transport"))
        if self.heads >= 1 and self.width % (2 * self.heads):
            problems.append(f"width = {self.width}: must be a multiple of 2 x heads = {2 * self.heads}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout = {self.dropout}: must be 0, or a share below 1")
        return problems
