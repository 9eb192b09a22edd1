"""The flag --roi of commands that use a checkpoint: in place of the region that the run recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxad.data import Region
    from jaxad.inference.checkpoint import Restored


def regions_of(roi: str | None) -> tuple[tuple[str, Region], ...] | None:
    """The regions that a user gives, as `Detector.regions` has them; None for those of the run.

    Raises:
        DataError: no such file, or no region.
    """
    from jaxad.data.region import given_regions

    return None if roi is None else tuple(sorted(given_regions(roi).items(), key=lambda item: item[0]))


def judge_in(restored: Restored, regions: tuple[tuple[str, Region], ...] | None) -> list[str]:
    """Has a detector judge these regions alone; what to say of it."""
    recorded = restored.detector.regions
    if regions is None:
        names = ", ".join(name or "all categories" for name, _ in recorded)
        return [f"judged only in the region that the run recorded (roi): {names}"] if recorded else []
    restored.detector.regions = regions
    if restored.threshold is None or regions == recorded:
        return []
    whole = "another region" if recorded else "whole images"
    return [f"roi: the threshold was measured on {whole}, and may be too high or too low for this region"]
