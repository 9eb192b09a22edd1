"""Settings that UniAD and HVQ-Trans, which is built on it, have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxad.config.fields import at_least, setting, shares
from jaxad.config.frozen_features import TrainedFeatures

_PUBLIC = "published code: UniAD"
_MVTEC = "as its configuration for MVTec-AD says; HVQ-Trans' code has the same"


@dataclass(frozen=True)
class FeatureTransformer(TrainedFeatures):
    """A transformer that restores features. Base of the settings of these detectors."""

    image_size: int = setting(224, source="paper")
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    standardize: Literal["channel", "none"] = setting(
        "channel",
        source="jaxad",
        reason="a few channels of DINOv2 are so large that they would dominate the squared error",
        decision="uniad-features",
    )
    """Feature scaling before reconstruction: fixed per-channel statistics, or none."""
    width: int = setting(256, source=_PUBLIC, reason=_MVTEC)
    """Channels of the encoder, and of UniAD's decoder; HVQ-Trans' has twice as many."""
    heads: int = setting(8, source=_PUBLIC, reason=_MVTEC)
    """Attention heads."""
    depth: int = setting(4, source="paper")
    """Layers of the encoder, and as many of the decoder."""
    hidden: int = setting(1024, source=_PUBLIC, reason=_MVTEC)
    """Width of the feed-forward layers."""
    dropout: float = setting(0.1, source=_PUBLIC, reason=_MVTEC)
    """Share of values and of attention weights that training sets to 0."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = super().problems() + at_least(self, 1, ("width", "heads", "depth", "hidden"))
        if self.heads >= 1 and self.width % (2 * self.heads):
            problems.append(f"width = {self.width}: must be a multiple of 2 x heads = {2 * self.heads}")
        return problems + shares(self, ("dropout",))
