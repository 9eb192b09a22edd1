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
    resized = Image.fromarray(image).resize((view.width, view.height), RESAMPLING[view.interpolation])
    return np.array(resized)
