"""Settings of HVQ-Trans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.feature_transformer import FeatureTransformer
from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL
from jaxad.config.training import SMALL_TRAINING

_PUBLIC = "published code: HVQ-Trans"
_MVTEC = "as its code for MVTec-AD says"
_TRAINING = {"clip_norm": 0.1, "weight_decay": 1e-4}


@dataclass(frozen=True)
class HVQTransConfig(FeatureTransformer):
    """HVQ-Trans: features are restored from the nearest entries of a hierarchy of codebooks (arXiv 2310.14228).

    On the features of the other detectors, not EfficientNet-b4's. The presets "paper" and "small" differ in these and
    in the training: 1,000 epochs of MVTec-AD, or 800 steps.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "entries", "transport")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}
    TRAININGS: ClassVar = {
        "paper": {**_TRAINING, "steps": 226_800, "batch_size": 16, "learning_rate": 1e-4},
        "small": {**_TRAINING, **SMALL_TRAINING, "learning_rate": 1e-3},
    }

    entries: int = setting(512, source="paper", decision="hvq-trans-codebooks")
    """Entries of each codebook."""
    commitment: float = setting(0.25, source=_PUBLIC, reason=_MVTEC)
    """Weight in the loss of the distance of features to their entries."""
    transport: float = setting(80.0, source=_PUBLIC, reason=_MVTEC, decision="hvq-trans-features")
    """Weight in the map of the cost of moving features to the entries of the last codebook; 0 for none."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        return super().problems() + at_least(self, 1, ("entries",)) + at_least(self, 0, ("commitment", "transport"))
