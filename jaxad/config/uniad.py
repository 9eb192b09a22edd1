"""Settings of UniAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import at_least, make_preset, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: UniAD"


@dataclass(frozen=True)
class UniADConfig(FrozenFeatures):
    """UniAD: reconstruction by a transformer whose tokens do not see their neighborhood (arXiv 2206.03687).

    On the features of the other detectors, not EfficientNet-b4's. The presets "paper" and "small" differ in these and
    in the training.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "jitter", "neighborhood")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    image_size: int = setting(224, source="paper")
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    standardize: Literal["channel", "none"] = setting(
        "channel",
        source="jaxad",
        reason="a few channels of DINOv2 are so large that they would dominate the squared error",
        decision="uniad-features",
    )
    """Feature scaling before reconstruction: fixed per-channel statistics, or none."""
    width: int = setting(256, source=_PUBLIC, reason="as its configuration for MVTec-AD says")
    """Channels of the transformer."""
    heads: int = setting(8, source=_PUBLIC, reason="as its configuration for MVTec-AD says")
    """Attention heads."""
    depth: int = setting(4, source="paper")
    """Layers of the encoder, and as many of the decoder."""
    hidden: int = setting(1024, source=_PUBLIC, reason="as its configuration for MVTec-AD says")
    """Width of the feed-forward layers."""
    dropout: float = setting(0.1, source=_PUBLIC, reason="as its configuration for MVTec-AD says")
    """Share of values and of attention weights that training sets to 0."""
    jitter: float = setting(20.0, source="paper")
    """Noise on features in training: its deviation over the token's length per channel."""
    neighborhood: int = setting(7, source=_PUBLIC, reason="for 14 x 14 tokens, in its configuration for MVTec-AD")
    """Side of the square around a token that it does not attend to, odd; 0 hides nothing."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name: 1,000 epochs of MVTec-AD, or 800 steps.

        Raises:
            ConfigError: no preset has that name.
        """
        shared = {"clip_norm": 0.1, "weight_decay": 1e-4}
        paper = {**shared, "steps": 56_700, "batch_size": 64, "learning_rate": 1e-4, "sampling": "size"}
        small = {**shared, "steps": 800, "batch_size": 16, "learning_rate": 1e-3, "warmup_steps": 50}
        small |= {"schedule": "cosine", "checkpoint_every": 250}
        return make_preset(TrainConfig, name, {"paper": paper, "small": small}, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("width", "heads", "depth", "hidden"))
        problems += at_least(self, 0, ("jitter", "neighborhood"))
        if self.heads >= 1 and self.width % (2 * self.heads):
            problems.append(f"width = {self.width}: must be a multiple of 2 x heads = {2 * self.heads}")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout = {self.dropout}: must be 0, or a share below 1")
        if self.neighborhood > 0 and self.neighborhood % 2 == 0:
            problems.append(f"neighborhood = {self.neighborhood}: must be odd, or 0")
        return problems
