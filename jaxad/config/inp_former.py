"""Settings of INP-Former."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.block_groups import PAPER_TRAINING, SHORT_TRAINING, BlockGroups
from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL


@dataclass(frozen=True)
class INPFormerConfig(BlockGroups):
    """INP-Former: normal prototypes drawn from the image itself restore its features (arXiv 2503.02424).

    The preset "paper" is the published setting for many categories, 200 epochs of MVTec-AD. "small" takes the features
    of DPDiff-AD's preset of that name, for CPUs and tests.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "prototypes", "depth")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}
    TRAININGS: ClassVar = {
        "paper": {**PAPER_TRAINING, "steps": 45_200, "learning_rate": 1e-3},
        "small": {**SHORT_TRAINING},
    }

    prototypes: int = setting(6, source="paper")
    """Normal prototypes that are drawn from each image."""
    coherence: float = setting(0.2, source="paper")
    """Weight in the loss of the distance of patches to their nearest prototype."""
    mining: float = setting(3.0, source="paper")
    """Power of a patch's distance over the mean that its gradient is multiplied by; 0 for none."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        return super().problems() + at_least(self, 1, ("prototypes",)) + at_least(self, 0, ("coherence", "mining"))
