"""Pictures of anomaly maps, and the files that `jaxad predict` leaves behind.

Heat is always drawn on the fixed scale of the category (`jaxad.inference.maps.heat_scale`): black is the median pixel
of its normal images, the middle of the colors is the decision threshold. A normal image therefore stays cold, whatever
its own largest value is.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from jaxad.errors import JaxadError
from jaxad.inference.maps import finite_map, fit_map
from jaxad.io.atomic import write_whole
from jaxad.io.pictures import encode_picture, shrink

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
    inside = _fit_mask(mask, picture.shape[:2]).astype(np.uint8)
    outlines, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if broken:
        dash = 4 + 3 * width
        outlines = [piece for line in outlines for piece in np.split(line, range(dash, len(line), dash))[::2]]
    if width > 1:
        cv2.polylines(picture, outlines, not broken, (0, 0, 0), width + 2, cv2.LINE_AA)
    cv2.polylines(picture, outlines, not broken, color, width, cv2.LINE_AA)
    return picture


def mask_picture(mask: np.ndarray) -> np.ndarray:
    """The mask [h w] as black and white, uint8 [h w 3]."""
    return np.repeat(np.where(np.asarray(mask) > 0, 255, 0).astype(np.uint8)[..., None], 3, axis=2)


def panels(
    image: np.ndarray,
    mask: np.ndarray | None,
    map: np.ndarray,
    *,
    low: float,
    high: float,
    side: int | None = None,
    threshold: float | None = None,
) -> dict[str, np.ndarray]:
    """The pictures of one case by name: input, mask (where there is one), map and overlay with both outlines.

    Args:
        image: uint8 [h w 3].
        mask: [h w] of any size, or None.
        map: float [h w] of any size.
        low, high: the category's `heat_scale`.
        side: longer side of the pictures in pixels; None keeps the image's size. Images are never enlarged.
        threshold: pixel limit; what lies above it has a broken outline.

    Returns:
        {"input" | "mask" | "map" | "overlay": uint8 [h w 3]}, all of one size.
    """
    image = shrink(image, side) if side else image
    heated = overlay(image, map, low=low, high=high)
    pictures = {"input": image}
    if mask is not None:
        mask = _fit_mask(mask, image.shape[:2])
        pictures["mask"] = mask_picture(mask)
    heated = marked(heated, mask, map, threshold)
    return {**pictures, "map": heat(fit_map(map, image.shape[:2]), low=low, high=high), "overlay": heated}


def marked(
    image: np.ndarray,
    mask: np.ndarray | None,
    map: np.ndarray,
    threshold: float | None,
    *,
    width: int | None = None,
) -> np.ndarray:
    """A copy of the image uint8 [h w 3] with the outlines of its true defect and, broken, of what is above a limit.

    Args:
        image: the picture to draw on.
        mask: the true defect, [h w] of any size, or None.
        map: float [h w] of any size.
        threshold: pixel limit, None to outline nothing.
        width: of lines in pixels, None for that of `contour`.
    """
    picture = image if mask is None else contour(image, mask, width=width)
    if threshold is None:
        return picture
    return contour(picture, fit_map(map, image.shape[:2]) > threshold, color=FLAGGED, broken=True, width=width)


def save_overlay(
    path: str | Path,
    image: np.ndarray,
    map: np.ndarray,
    *,
    low: float,
    high: float,
    alpha: float = 0.55,
    threshold: float | None = None,
) -> Path:
    """Writes `overlay` as PNG or JPEG, with the outline of what lies above the pixel `threshold` if one is given.

    Raises:
        JaxadError: the path has another extension.
    """
    picture = overlay(image, map, low=low, high=high, alpha=alpha)
    if threshold is not None:
        picture = contour(picture, fit_map(map, image.shape[:2]) > threshold)
    return write_whole(path, encode_picture(picture, Path(path).suffix))


def save_map(path: str | Path, map: np.ndarray) -> Path:
    """Writes the map [h w] as float32, unscaled, at its own size: `.npy`, or `.tif`/`.tiff` with one 32-bit channel.

    Raises:
        JaxadError: the path has another extension.
    """
    buffer, suffix = io.BytesIO(), Path(path).suffix.lower()
    if suffix == ".npy":
        np.save(buffer, finite_map(map), allow_pickle=False)
    elif suffix in (".tif", ".tiff"):
        Image.fromarray(finite_map(map)).save(buffer, "TIFF", compression="tiff_deflate")
    else:
        raise JaxadError(f"{path}: maps are saved as .npy, .tif or .tiff")
    return write_whole(path, buffer.getvalue())


def save_mask(path: str | Path, mask: np.ndarray) -> Path:
    """Writes the mask [h w] as an 8-bit gray PNG of 0 and 255, at its own size.

    Raises:
        JaxadError: the path has another extension.
    """
    if Path(path).suffix.lower() != ".png":
        raise JaxadError(f"{path}: masks are saved as .png")
    return write_whole(path, encode_picture(mask_picture(mask)[..., 0], ".png"))


def _strength(map: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((finite_map(map) - low) / (high - low), 0, 1)


def _fit_mask(mask: np.ndarray, size: Sequence[int]) -> np.ndarray:
    inside = (np.asarray(mask) > 0).astype(np.uint8)
    return cv2.resize(inside, (int(size[1]), int(size[0])), interpolation=cv2.INTER_NEAREST) > 0
