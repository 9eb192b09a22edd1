"""The flag --roi of commands that use a checkpoint: in place of the region that the run recorded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxad.data import Region
    from jaxad.inference.checkpoint import Restored


def regions_of(roi: str | None) -> dict[str, Region] | None:
    """The regions that a user gives by category; None for those of the run.

    Raises:
        DataError: no such file, or no region.
    """
    from jaxad.data.region import given_regions

    return None if roi is None else given_regions(roi)


def judge_in(
    restored: Restored, regions: Mapping[str, Region] | None, known: Collection[str], whose: str = ""
) -> list[str]:
    """Has a detector judge these regions alone; what to say of it.

    Args:
        restored: the detector, and the threshold that was measured.
        regions: by category; None for those of the run.
        known: categories that images may show.
        whose: begins the words that are said.

    Raises:
        DataError: a region of a category that is not known.
    """
    from jaxad.data.region import of_categories

    recorded = restored.detector.regions
    if regions is None:
        names = ", ".join(name or "all categories" for name, _ in recorded)
        return [f"{whose}judged only in the region that the run recorded (roi): {names}"] if recorded else []
    restored.detector.regions = given = tuple(sorted(of_categories(regions, known).items(), key=lambda one: one[0]))
    if restored.threshold is None or given == recorded:
        return []
    where = "another region" if recorded else "whole images"
    what = "this region" if given else "whole images"
    return [f"{whose}roi: the threshold was measured on {where}, and may be too high or too low for {what}"]
