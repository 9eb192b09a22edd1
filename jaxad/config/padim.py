"""Settings of PaDiM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures


@dataclass(frozen=True)
class PaDiMConfig(FrozenFeatures):
    """PaDiM: a Gaussian for every place of the image (arXiv 2011.08785), on the features of the other detectors.

    The presets "paper" and "small" are the settings beside DPDiff-AD's presets of the same names.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "dimensions", "regularization")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL}}

    dimensions: int = setting(
        100,
        source="paper",
        reason="100 of ResNet-18's 448 channels, 550 of a wide ResNet-50's 1,792",
        decision="padim-dimensions",
    )
    """Channels that are compared, drawn at random once; all where the features have fewer."""
    regularization: float = setting(0.01, source="paper")
    """Times the identity, what is added to every covariance."""
    seed: int = setting(0, source="jaxad", reason="any number does")
    """Seed of the choice of channels."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("dimensions",))
        if not self.regularization > 0:
            problems.append(f"regularization = {self.regularization}: must be above 0")
        return problems
