"""Settings of SimpleNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import at_least, make_preset, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: SimpleNet"


@dataclass(frozen=True)
class SimpleNetConfig(FrozenFeatures):
    """SimpleNet: a discriminator of features and the same features with noise (arXiv 2303.15140).

    On the features of the other detectors, not a wide ResNet-50's. The presets "paper" and "small" differ in these and
    in the training.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "noise", "hidden")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    standardize: Literal["channel", "none"] = setting(
        "channel",
        source="jaxad",
        reason="noise of one size for all channels means little where a few of them are far larger than the rest",
        decision="simplenet-features",
    )
    """Feature scaling: to the deviation of each channel over the training patches, or none."""
    neighborhood: int = setting(3, source="paper")
    """Side of the square of patches that are averaged around each, odd; 1 for the patch alone."""
    noise: float = setting(
        0.15,
        source="jaxad",
        reason="published is 0.015, too little beside channels of unit variance to be told from none",
        decision="simplenet-features",
    )
    """Standard deviation of the noise that makes features anomalous."""
    hidden: int = setting(1024, source=_PUBLIC, reason="as its script for MVTec-AD says")
    """Width of the discriminator's hidden layer."""
    margin: float = setting(0.5, source="paper")
    """Score beyond which a feature, with noise or without, costs nothing."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name: 160 epochs of MVTec-AD, or 800 steps.

        Raises:
            ConfigError: no preset has that name.
        """
        paper = {"steps": 72_600, "batch_size": 8, "learning_rate": 2e-4, "weight_decay": 1e-5, "sampling": "size"}
        small = {"steps": 800, "batch_size": 16, "learning_rate": 1e-3, "warmup_steps": 50, "weight_decay": 1e-5}
        small |= {"schedule": "cosine", "checkpoint_every": 250}
        return make_preset(TrainConfig, name, {"paper": paper, "small": small}, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("neighborhood", "hidden")) + at_least(self, 0, ("margin",))
        if self.neighborhood >= 1 and self.neighborhood % 2 == 0:
            problems.append(f"neighborhood = {self.neighborhood}: must be odd")
        if not self.noise > 0:
            problems.append(f"noise = {self.noise}: must be above 0")
        return problems
