"""Settings of SimpleNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL, TrainedFeatures
from jaxad.config.training import SMALL_TRAINING

_PUBLIC = "published code: SimpleNet"


@dataclass(frozen=True)
class SimpleNetConfig(TrainedFeatures):
    """SimpleNet: a discriminator of features and the same features with noise (arXiv 2303.15140).

    On the features of the other detectors, not a wide ResNet-50's. The presets "paper" and "small" differ in these and
    in the training: 160 epochs of MVTec-AD, or 800 steps.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "noise", "hidden")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}
    TRAININGS: ClassVar = {
        "paper": {"steps": 72_600, "batch_size": 8, "learning_rate": 2e-4, "weight_decay": 1e-5},
        "small": {**SMALL_TRAINING, "learning_rate": 1e-3, "weight_decay": 1e-5},
    }

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

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("neighborhood", "hidden")) + at_least(self, 0, ("margin",))
        if self.neighborhood >= 1 and self.neighborhood % 2 == 0:
            problems.append(f"neighborhood = {self.neighborhood}: must be odd")
        if not self.noise > 0:
            problems.append(f"noise = {self.noise}: must be above 0")
        return problems
