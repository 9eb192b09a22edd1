"""Settings of the linear denoiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL, FrozenFeatures

_ALIKE = "as DPDiff-AD has it, so that the two differ in the denoiser alone"


@dataclass(frozen=True)
class LinearConfig(FrozenFeatures):
    """The linear denoiser: what DPDiff-AD would be if its network were the best linear map, in closed form.

    The presets "paper" and "small" are the settings beside DPDiff-AD's presets of the same names.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "start_timestep", "residual")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL, "start_timestep": 100, "residual": "cosine"}}

    start_timestep: int = setting(250, source="jaxad", reason=_ALIKE, decision="linear-denoiser-noise")
    """Timestep t, of 1000, to which test features are noised; the larger, the more directions count as anomalous."""
    residual: Literal["squared", "cosine"] = setting("squared", source="jaxad", reason=_ALIKE)
    """Squared L2 distance of standardized features, or 1 - cosine of the backbone's own features."""
    noise: Literal["expected", "drawn"] = setting(
        "expected",
        source="jaxad",
        reason="of a linear denoiser the mean over all noise has a closed form",
        decision="linear-denoiser-noise",
    )
    """The mean reconstruction over all noise, without drawing any; or that over `draws`."""
    draws: int = setting(1, source="jaxad", reason="as DPDiff-AD's paper has it", decision="linear-denoiser-noise")
    """Noise draws whose reconstructions are averaged, where noise is drawn."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 0, ("start_timestep",)) + at_least(self, 1, ("draws",))
        if self.start_timestep > 999:
            problems.append(f"start_timestep = {self.start_timestep}: must be at most 999")
        return problems
