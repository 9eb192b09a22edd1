"""Settings of Dinomaly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.block_groups import PAPER_TRAINING, SHORT_TRAINING, BlockGroups
from jaxad.config.fields import at_least, setting, shares
from jaxad.config.frozen_features import SMALL

_PUBLIC = "published code: Dinomaly"


@dataclass(frozen=True)
class DinomalyConfig(BlockGroups):
    """Dinomaly: reconstruction of frozen features by a decoder that cannot focus (arXiv 2405.14325).

    The preset "paper" is the published setting for MVTec-AD and VisA. "small" takes the features of DPDiff-AD's preset
    of that name, for CPUs and tests. Real-IAD is published with 50,000 steps.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "dropout", "depth")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}
    TRAININGS: ClassVar = {
        "paper": {**PAPER_TRAINING, "steps": 10_000, "learning_rate": 2e-3},
        "small": {**SHORT_TRAINING},
    }

    dropout: float = setting(0.2, source="paper", reason="0.4 for Real-IAD")
    """Share of the bottleneck's values that training sets to 0."""
    easy_share: float = setting(0.9, source=_PUBLIC, reason="the paper says that easy points weigh less")
    """Share of the points of a batch that are taken for easy, the ones restored best."""
    easy_gradient: float = setting(0.1, source=_PUBLIC, reason="the paper says that easy points weigh less")
    """What the gradient of easy points is multiplied by."""
    easy_steps: int = setting(1000, source=_PUBLIC, reason="the paper gives none")
    """Steps over which the share of easy points grows from 0."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("easy_steps",)) + at_least(self, 0, ("easy_gradient",))
        return problems + shares(self, ("dropout", "easy_share"))
