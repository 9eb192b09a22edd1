"""Anomaly maps of images: their size, their scale of colors, their hottest region."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from jaxad.io.pictures import by_centers

FAINT = 0.8
"""Share of its highest pixel above which the hottest region of a faint anomaly is drawn."""


def heat_scale(threshold: float | None = None, normal: np.ndarray | None = None) -> tuple[float, float]:
    """The range (low, high) of map values over which colors run, the same for every image of a category.

    Args:
        threshold: pixel threshold of the category, which falls on the middle of the colors; None takes the 99.5 %
            quantile of `normal`.
        normal: map values of normal images, any shape; their median is the cold end. None takes 0, or twice a
            threshold that is below it, as it can be where what is expected is taken off a map.

    Returns:
        (low, high) with low < high.

    Raises:
        ValueError: neither is given, or `normal` is empty or not finite.
    """
    if normal is None and threshold is None:
        raise ValueError("heat_scale needs a threshold or the map values of normal images")
    if normal is not None and (normal.size == 0 or not np.isfinite(normal).all()):
        raise ValueError("heat_scale: `normal` is empty or holds values that are not finite")
    low = min(0.0, 2 * float(threshold)) if normal is None else float(np.median(normal))  # type: ignore[arg-type]
    middle = float(np.quantile(normal, 0.995)) if threshold is None else float(threshold)  # type: ignore[arg-type]
    smallest = max(abs(low) * 1e-6, 1e-12)
    return low, low + 2 * max(middle - low, smallest)


def image_map(
    map: np.ndarray, size: Sequence[int], inside: np.ndarray | None = None, limit: float | None = None
) -> np.ndarray:
    """The map [h w] at the size (h, w) of its image, with nothing above the limit outside of what is judged."""
    map = fit_map(map, size)
    return map if inside is None else kept_to(inside, map, limit)


def defect_box(map: np.ndarray, limit: float) -> tuple[int, int, int, int] | None:
    """Box around the defect of an anomalous image: the 8-connected region that holds the hottest pixel.

    An anomalous image has a place to look at, also where no single pixel passes the limit: the region above `FAINT` of
    the hottest pixel then.

    Args:
        map: [h w] at the image's own size (`image_map`).
        limit: pixel limit of the image's category.

    Returns:
        (x0, y0, x1, y1) in pixels of the map, x1 and y1 exclusive; None for a map without a pixel above 0.
    """
    map = finite_map(map)
    limit = faint_limit(map, limit)
    hottest = np.unravel_index(int(map.argmax()), map.shape)
    if not map[hottest] > limit:
        return None
    _, regions, boxes, _ = cv2.connectedComponentsWithStats((map > limit).astype(np.uint8), connectivity=8)
    left, top, width, height = boxes[regions[hottest], : cv2.CC_STAT_AREA].tolist()
    return left, top, left + width, top + height


def faint_limit(map: np.ndarray, limit: float) -> float:
    """The pixel limit, lowered so that the hottest region of an anomalous image's map is above it."""
    return min(limit, FAINT * float(map.max()))


def fit_map(map: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """The map [h w] resized to `size` (h, w), bilinear with half-pixel centers, as float32."""
    map, (height, width) = finite_map(map), size
    if map.shape == (height, width):
        return map
    return cv2.resize(map, (int(width), int(height)), interpolation=cv2.INTER_LINEAR)


def finite_map(map: np.ndarray) -> np.ndarray:
    map = np.ascontiguousarray(map, np.float32)
    if map.ndim != 2 or map.size == 0 or not np.isfinite(map).all():
        raise ValueError(f"an anomaly map must be [h w] and finite, this one is {list(map.shape)}")
    return map


def kept_to(inside: np.ndarray, map: np.ndarray, limit: float | None) -> np.ndarray:
    """The map [h w] of a region, `inside` bool [h' w'], with nothing above the limit outside."""
    lowest = map.min() if limit is None else min(float(map.min()), limit)
    return np.where(by_centers(inside, (map.shape[0], map.shape[1])), map, np.float32(lowest))
