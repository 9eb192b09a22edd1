"""Which definitions of the metrics an evaluation takes; values only, free of numpy and jax."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AuproGrid:
    """How AUPRO is taken from a grid of thresholds.

    Attributes:
        steps: thresholds, at distances (max - min) / steps.
        from_top: thresholds max, max - step, ..., which begin at FPR 0, instead of max - step, ..., min.
        at_limit: keep points with FPR equal to the limit, not only below it.
        rescale: FPR becomes FPR / max ("max") or (FPR - min) / (max - min) ("range") over the points kept.
    """

    steps: int
    from_top: bool = False
    at_limit: bool = False
    rescale: Literal["max", "range"] = "max"


@dataclass(frozen=True)
class MetricRules:
    """Where the code of published evaluations departs from the exact definitions, which are the defaults.

    Attributes:
        flip_auroc: an AUROC below 0.5 becomes 1 - AUROC, of images and of pixels.
        f1_steps: thresholds of the pixel F1 on scores scaled to [0, 1] over the category; None for all thresholds.
        aupro_grid: thresholds of AUPRO; None for all of them, interpolated at the limit.
        filled_regions: AUPRO counts overlap with the holes of a region too.
        fpr_limit: false-positive rate up to which AUPRO integrates, in 0..1.
    """

    flip_auroc: bool = False
    f1_steps: int | None = None
    aupro_grid: AuproGrid | None = None
    filled_regions: bool = False
    fpr_limit: float = 0.3

    @property
    def on_grid(self) -> bool:
        """Whether a metric looks at a fixed grid of thresholds."""
        return self.f1_steps is not None or self.aupro_grid is not None


EXACT = MetricRules()
"""All thresholds, 8-connected regions, linear interpolation at the limit."""
