"""Decoded pixels: what identifies them, and their rendering at the size of a view."""

from __future__ import annotations

import hashlib

import numpy as np
from PIL import Image

from jaxad.errors import DataError
from jaxad.types import View

RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def pixel_digest(image: np.ndarray) -> bytes:
    """16 bytes (BLAKE2b) that identify pixels [h w] or [h w c] and their shape, whatever file they came from."""
    digest = hashlib.blake2b(np.asarray(image.shape, "<u4").tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def pixel_hash(image: np.ndarray) -> int:
    """A uint32 of the decoded pixels and their shape, from which an image's noise is drawn."""
    return int.from_bytes(pixel_digest(image)[:4], "little")


def resize(image: np.ndarray, view: View) -> np.ndarray:
    """uint8 [h w 3] to uint8 [view.height view.width 3] with PIL's antialiased resampling.

    Raises:
        DataError: the view has an unknown interpolation.
    """
    if view.interpolation not in RESAMPLING:
        raise DataError(f"interpolation {view.interpolation!r} of a view: must be one of {', '.join(RESAMPLING)}")
    if image.shape[:2] == (view.height, view.width):
        return image
    box = _middle(image.shape[0], image.shape[1], view) if view.crop else None
    resized = Image.fromarray(image).resize((view.width, view.height), RESAMPLING[view.interpolation], box)
    return np.array(resized)


def _middle(height: int, width: int, view: View) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an image's middle in the aspect ratio of a view."""
    scale = min(height / view.height, width / view.width)
    left, top = max(width - scale * view.width, 0) / 2, max(height - scale * view.height, 0) / 2
    return left, top, width - left, height - top
