"""Pictures of cases, and the files that `jaxad predict` leaves behind; heat is drawn by `jaxad.inference.heat`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jaxad.errors import JaxadError
from jaxad.inference.heat import FLAGGED, contour, fit_mask, heat, overlay
from jaxad.inference.maps import finite_map, fit_map
from jaxad.io.atomic import write_whole
from jaxad.io.pictures import encode_picture, shrink


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
        mask = fit_mask(mask, image.shape[:2])
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
