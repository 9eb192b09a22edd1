"""Decision thresholds: limits per category above which an image, or a pixel of its map, is called anomalous."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

POOLED = ""
"""Key of the limits measured on the normal images of all categories together."""


@dataclass(frozen=True)
class Limits:
    """Limits of one category: above them an image, or a pixel of its map, is called anomalous.

    Attributes:
        image: limit of the image score.
        pixel: limit of the protocol's map.
        typical: median of the maps, where colors begin in pictures.
        normals: number of normal images they were measured on.
    """

    image: float
    pixel: float
    typical: float
    normals: int


@dataclass(frozen=True)
class Threshold:
    """A decision rule and where it comes from.

    Attributes:
        false_alarm: share of normal images allowed above the limit, 0..1.
        protocol: evaluation protocol in which scores and maps were measured.
        limits: by category; "" holds the pooled limits, for categories that are unknown or had no hold-out.
        images: names of the hold-out images, so that the rule can be checked.
        warnings: categories with fewer normal images than 1 / false_alarm.
    """

    false_alarm: float
    protocol: str
    limits: Mapping[str, Limits]
    images: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    def of(self, category: str | None) -> Limits:
        """Limits of a category, or the pooled ones where it has none of its own."""
        return self.limits.get(category or POOLED, self.limits[POOLED])

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; the inverse of `from_json`."""
        values = asdict(self)
        return {**values, "images": list(self.images), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Threshold:
        """A rule as `to_json` wrote it."""
        limits = {name: Limits(**limit) for name, limit in values["limits"].items()}
        return cls(
            values["false_alarm"], values["protocol"], limits, tuple(values["images"]), tuple(values["warnings"])
        )
