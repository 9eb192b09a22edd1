"""Decision thresholds: limits per category above which an image, or a pixel of its map, is called anomalous."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jaxad.errors import ConfigError
from jaxad.io.notebook import table

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
        above: how many of these have a score above the image limit; None where that is not recorded.
        spread: standard deviation of their image scores, the unit of `Threshold.scaled`; 0 where it is not recorded.
        asked: the false-alarm rate that the limits were chosen for, 0 for that of the threshold.
        by_hand: whether the image limit was set to a value in place of a quantile; pixel limits are always quantiles.
    """

    image: float
    pixel: float
    typical: float
    normals: int
    above: int | None = None
    spread: float = 0.0
    asked: float = 0.0
    by_hand: bool = False


@dataclass(frozen=True, repr=False)
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

    @property
    def source(self) -> str:
        """Where it comes from, in a few words."""
        if self.value is not None:
            return f"{self.value:g}, set by hand"
        return f"a false-alarm rate of {self.false_alarm:g}, {self.limits[POOLED].normals} hold-out images"

    def __repr__(self) -> str:
        return f"<Threshold: {self.source}, {self.protocol}>"

    def _repr_html_(self) -> str:
        """For notebooks: the limits of each category."""
        rows = [
            (name or "all together", f"{own.image:.4g}", f"{own.pixel:.4g}", own.normals)
            for name, own in self.limits.items()
        ]
        return table(("", "image limit", "pixel limit", "hold-out images"), rows, f"Threshold: {self.source}")

    def of(self, category: str | None) -> Limits:
        """Limits of a category, or the pooled ones where it has none of its own."""
        return self.limits.get(category or POOLED, self.limits[POOLED])

    def scaled(self, score: float, category: str | None = None) -> float:
        """The image score on a scale of 0 to 1 on which the threshold is 0.5, whatever detector and category.

        With d = (score - threshold) / spread, the distance to the threshold in standard deviations of the normal
        hold-out scores, it is (1 + d / (1 + |d|)) / 2. It grows with the score and is above 0.5 exactly where the image
        is called anomalous. Where the spread is 0 or not recorded, |threshold| stands for it, or 1.
        """
        limits = self.of(category)
        distance = (score - limits.image) / (limits.spread or abs(limits.image) or 1.0)
        scaled = 0.5 + 0.5 * distance / (1 + abs(distance)) if math.isfinite(distance) else float(distance > 0)
        # Rounding must not make a decision.
        return max(scaled, math.nextafter(0.5, 1)) if score > limits.image else min(scaled, 0.5)

    def supported(self, category: str | None = None) -> float | None:
        """The false-alarm rate that the hold-out of a category vouches for: a further normal image passes no oftener.

        Of a quantile it is `false_alarm`, or 1 / (n + 1) where n hold-out images are too few for it. Of a value set by
        hand, which k of them pass, it is (k + 1) / (n + 1); None where k is not recorded.
        """
        limits, asked = self.of(category), self.asked(category)
        if asked is not None:
            return max(asked, 1 / (limits.normals + 1))
        return None if limits.above is None else (limits.above + 1) / (limits.normals + 1)

    def asked(self, category: str | None = None) -> float | None:
        """The false-alarm rate that a category's limits were chosen for; None where its image limit was set by hand."""
        limits = self.of(category)
        return None if limits.by_hand else limits.asked or self.false_alarm

    @property
    def value(self) -> float | None:
        """The image limit that was set by hand for all categories, None without such."""
        values = {limits.image for limits in self.limits.values() if limits.by_hand}
        return values.pop() if len(values) == 1 and all(limits.by_hand for limits in self.limits.values()) else None

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values; the inverse of `from_json`."""
        values = asdict(self)
        return {**values, "images": list(self.images), "warnings": list(self.warnings)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Threshold:
        """A rule as `to_json` wrote it."""
        limits = {name: Limits(**limit) for name, limit in values["limits"].items()}
        images, warnings = tuple(values["images"]), tuple(values["warnings"])
        return cls(values["false_alarm"], values["protocol"], limits, images, warnings)


def rate_text(asked: float | None, supported: float | None, normals: int) -> str:
    """A false-alarm rate as it is shown to people: never one that its hold-out images do not support.

    "1%" where there are enough of them; "1% asked for, up to 16.7% (1/6)" where there are five.

    Args:
        asked: the rate that the threshold was chosen for, None where it was set by hand.
        supported: `Threshold.supported`.
        normals: number of hold-out images.
    """
    if supported is None:
        return "not known"
    if asked is not None and supported <= asked:
        return f"{100 * asked:.3g}%"
    bound = f"up to {100 * supported:.3g}% ({round(supported * (normals + 1))}/{normals + 1})"
    return bound if asked is None else f"{100 * asked:.3g}% asked for, {bound}"


def overridden(threshold: Threshold | None, value: float, *, protocol: str | None = None) -> Threshold:
    """The rule with another image limit, the same for all categories; limits of pixels and colors stay as measured.

    Args:
        threshold: as measured.
        value: the image score above which an image is to be called anomalous.
        protocol: in which scores are; None for that of the threshold.

    Raises:
        ConfigError: the value is not finite, there is no measured rule, or it is of another protocol.
    """
    if not math.isfinite(value):
        raise ConfigError(f"threshold = {value}: must be a number")
    if threshold is None:
        raise ConfigError(
            f"threshold = {value:g}: the checkpoint has no threshold, whose limits for pixels would be kept; "
            "`jaxad threshold --checkpoint RUN --data SRC` measures one on normal images"
        )
    if protocol not in (None, threshold.protocol):
        raise ConfigError(
            f"threshold = {value:g}: the checkpoint's limits for pixels were measured under {threshold.protocol}, not "
            f"{protocol}; take protocol = {threshold.protocol}"
        )
    changes = {"image": float(value), "above": None, "by_hand": True}
    limits = {name: replace(limit, **changes) for name, limit in threshold.limits.items()}
    return replace(threshold, limits=limits, warnings=())
