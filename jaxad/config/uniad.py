"""Settings of UniAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.feature_transformer import FeatureTransformer
from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL
from jaxad.config.training import SMALL_TRAINING

_TRAINING = {"clip_norm": 0.1, "weight_decay": 1e-4}


@dataclass(frozen=True)
class UniADConfig(FeatureTransformer):
    """UniAD: reconstruction by a transformer whose tokens do not see their neighborhood (arXiv 2206.03687).

    On the features of the other detectors, not EfficientNet-b4's. The presets "paper" and "small" differ in these and
    in the training: 1,000 epochs of MVTec-AD, or 800 steps.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "jitter", "neighborhood")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}
    TRAININGS: ClassVar = {
        "paper": {**_TRAINING, "steps": 56_700, "batch_size": 64, "learning_rate": 1e-4},
        "small": {**_TRAINING, **SMALL_TRAINING, "learning_rate": 1e-3},
    }

    jitter: float = setting(20.0, source="paper")
    """Noise on features in training: its deviation over the token's length per channel."""
    neighborhood: int = setting(
        7, source="published code: UniAD", reason="for 14 x 14 tokens, in its configuration for MVTec-AD"
    )
    """Side of the square around a token that it does not attend to, odd; 0 hides nothing."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 0, ("jitter", "neighborhood"))
        if self.neighborhood > 0 and self.neighborhood % 2 == 0:
            problems.append(f"neighborhood = {self.neighborhood}: must be odd, or 0")
        return problems
