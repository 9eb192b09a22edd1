"""What detectors that retrieve patches of similar normal images have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxad.config.fields import at_least, setting
from jaxad.config.frozen_features import FrozenFeatures


@dataclass(frozen=True)
class RetrievedPatches(FrozenFeatures):
    """The features, and the memory that patches are retrieved from. Base of the settings of these detectors."""

    groups: Literal[1, 2] = setting(
        1,
        source="jaxad",
        reason="published is one mean; shallow and deep blocks see other defects, and their mean hides both",
        decision="dpdiff-groups",
    )
    """Groups of a ViT's blocks, shallow and deep, whose means are denoised side by side: features of twice the width,
    and the mean of the two residuals. 1 for one mean of all."""
    memory: int = setting(
        100_000,
        source="jaxad",
        reason="bounds the checkpoint, to 77 MB at 384 channels; what is found in it takes no longer to compare with",
        decision="dpdiff-retrieval",
    )
    """Patches that retrieval remembers at most, equally many of every training image, and one at least."""
    retrieved: int = setting(
        4096,
        source="jaxad",
        reason="a fifth of what the patch bank compares with",
        decision="dpdiff-retrieval",
    )
    """Remembered patches that an image is compared with, those of the images most like it."""
    nearest: bool = setting(
        False,
        source="jaxad",
        reason="published maps are residuals of the reconstruction; either finds more in some kinds of parts",
        decision="dpdiff-nearest-patch",
    )
    """Whether the residual is the geometric mean of that of the reconstruction and the least one that any of the
    retrieved patches leaves."""
    image_score: Literal["protocol", "excess"] = setting(
        "excess",
        source="jaxad",
        reason="some normal patches are harder to restore than others",
        decision="dpdiff-image-score",
    )
    """Image score: what the protocol takes from the residuals, or from what exceeds those of the remembered normal
    patches that are most alike."""
    expected_share: float = setting(
        0.0,
        source="jaxad",
        reason="published maps are residuals; edges, whose residuals are always large, hide small defects in them",
        decision="dpdiff-expected-share",
    )
    """Share of the residuals of the remembered normal patches that are most alike which is taken off the map."""

    @property
    def expects(self) -> bool:
        """Whether residuals of remembered patches are needed."""
        return self.image_score == "excess" or self.expected_share > 0

    def settled(self) -> tuple[str, ...]:
        """What decides which residuals are remembered; whether they are used, where they are not."""
        return ("memory", "retrieved", *(("nearest",) if self.expects else ("image_score", "expected_share")))

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = super().problems() + at_least(self, 1, ("memory", "retrieved"))
        return problems + at_least(self, 0, ("expected_share",))
