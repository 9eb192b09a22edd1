"""Heat: an anomaly map in colors, laid over its image, and outlines of what lies above a limit.

Heat of a judgement is drawn on the fixed scale of the category (`jaxad.inference.maps.heat_scale`): black is the median
pixel of its normal images, the middle of the colors is the decision threshold. A normal image therefore stays cold,
whatever its own largest value is. Where maps are compared by their shapes alone, each has a scale of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np

from jaxad.inference.maps import finite_map, fit_map

Palette = Literal["inferno", "viridis"]

OUTLINE = (64, 224, 208)
"""Color of outlines, turquoise, which neither palette nor most parts have."""
FLAGGED = (255, 60, 255)
"""Color of the outline of what a detector flags where the true defect is outlined too; its line is broken besides."""
_PALETTES = {"inferno": cv2.COLORMAP_INFERNO, "viridis": cv2.COLORMAP_VIRIDIS}


def heat(map: np.ndarray, *, low: float, high: float, palette: Palette = "inferno") -> np.ndarray:
    """The map [h w] as uint8 [h w 3], in a palette whose even steps look even, also to the color-blind.

    Args:
        map: float [h w], finite.
        low, high: values that get the first and the last color; those beyond them get these colors too.
        palette: "inferno" for anomaly, "viridis" for similarity.
    """
    levels = (_strength(map, low, high) * 255).round().astype(np.uint8)
    return np.ascontiguousarray(cv2.applyColorMap(levels, _PALETTES[palette])[..., ::-1])


def own_heat(map: np.ndarray, size: Sequence[int], palette: Palette = "inferno") -> np.ndarray:
    """The map, any [h w], as `heat` of `size` (h, w), its colors from its own least to its own largest value there.

    A constant map has the first color.
    """
    fitted = fit_map(map, size)
    low, high = float(fitted.min()), float(fitted.max())
    return heat(fitted, low=low, high=max(high, low + max(abs(low) * 1e-6, 1e-12)), palette=palette)


def overlay(image: np.ndarray, map: np.ndarray, *, low: float, high: float, alpha: float = 0.55) -> np.ndarray:
    """The image with the map's heat laid over it.

    Args:
        image: uint8 [h w 3].
        map: float, any [h w]; resized to the image.
        low, high: the category's `heat_scale`.
        alpha: opacity, 0 to 1, reached in the middle of the scale, that is at the threshold. Below half of the way
            there the image is left as it is, so that a normal image keeps its looks.

    Returns:
        uint8 [h w 3], of the image's size.
    """
    map = fit_map(map, image.shape[:2])
    weight = alpha * np.clip(4 * _strength(map, low, high) - 1, 0, 1)[..., None]
    return ((1 - weight) * image + weight * heat(map, low=low, high=high)).round().astype(np.uint8)


def contour(
    image: np.ndarray,
    mask: np.ndarray,
    *,
    color: tuple[int, int, int] = OUTLINE,
    broken: bool = False,
    width: int | None = None,
) -> np.ndarray:
    """A copy of the image uint8 [h w 3] with the outline of the mask [h w] (any size, > 0 is inside) drawn on it.

    The line grows with the image unless its `width` is given; from 2 pixels on it has a dark edge, so that it shows on
    bright and dark parts. A `broken` one is told from another without its color.
    """
    picture = np.ascontiguousarray(image).copy()
    width = width or max(1, round(max(picture.shape[:2]) / 200))
    inside = fit_mask(mask, picture.shape[:2]).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if broken:
        dash = 4 + 3 * width
        outlines = [piece for line in outlines for piece in np.split(line, range(dash, len(line), dash))[::2]]
    if width > 1:
        cv2.polylines(picture, outlines, not broken, (0, 0, 0), width + 2, cv2.LINE_AA)
    cv2.polylines(picture, outlines, not broken, color, width, cv2.LINE_AA)
    return picture


def _strength(map: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((finite_map(map) - low) / (high - low), 0, 1)


def fit_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The mask [h w] resized to `size` (h, w), as bool."""
    inside = (np.asarray(mask) > 0).astype(np.uint8)
    return cv2.resize(inside, (int(size[1]), int(size[0])), interpolation=cv2.INTER_NEAREST) > 0
