"""Settings of the denoiser by retrieval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import SMALL
from jaxad.config.retrieved_patches import RetrievedPatches


@dataclass(frozen=True)
class RetrievalConfig(RetrievedPatches):
    """The denoiser by retrieval: what DPDiff-AD with that preconditioning is before its network is trained.

    The preset "paper" is for the features of DPDiff-AD's preset of that name, "small" for those of a CPU: two groups of
    blocks, residuals beside those of the nearest patch, and a map less what is expected of normal patches, as
    DPDiff-AD's preset "retrieval" has them.
    """

    MAIN: ClassVar = ("backbone", "blocks", "image_size", "start_timestep", "residual", "image_score")
    PRESETS: ClassVar = {"paper": {}, "small": {**SMALL, "groups": 2, "nearest": True, "expected_share": 0.75}}

    start_timestep: int = setting(
        100, source="jaxad", reason="at 250 pixels are found less well", decision="dpdiff-retrieval"
    )
    """Timestep t, of 1000, whose noise patches are told apart through."""
    residual: Literal["squared", "cosine"] = setting(
        "cosine", source="jaxad", reason="as DPDiff-AD's preset small has it", decision="dpdiff-residual"
    )
    """Squared L2 distance of standardized features, or 1 - cosine of the backbone's own features."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 0, ("start_timestep",))
        if self.start_timestep > 999:
            problems.append(f"start_timestep = {self.start_timestep}: must be at most 999")
        return problems

    def settled(self) -> tuple[str, ...]:
        """All that what is remembered depends on."""
        return (*super().settled(), *(("start_timestep", "residual") if self.expects else ()))
