"""JPEG to pixels, where what libjpeg only warns of is an error: scans cut short, broken markers, wrong codes."""

from __future__ import annotations

import re

import numpy as np
from PIL import ImageFile

# A platform without it reads JPEG by Pillow, which shows damaged parts in gray.
try:
    import simplejpeg
except ImportError:  # pragma: no cover
    simplejpeg = None

_HARMLESS = re.compile(r"\b[12] extraneous bytes before marker 0xd9|SOS parameters|Adobe|JFIF", re.IGNORECASE)
"""Peculiarities of cameras that leave the pixels whole."""


class DamagedJPEG(ValueError):
    """The file is a JPEG, but not all of its pixels are there; `kind` is "truncated image" or "damaged image"."""

    def __init__(self, message: str, encoded: bytes):
        super().__init__(message)
        whole = b"\xff\xd9" in encoded[-64:] and "premature" not in message.lower()
        self.kind = "damaged image" if whole else "truncated image"


def decode_jpeg(encoded: bytes, mode: str) -> np.ndarray | None:
    """Pixels uint8 [h w 3] of a JPEG as it is stored, the same that Pillow gives, in half the time.

    Args:
        encoded: content of the file; only the first image counts.
        mode: of the opened image in Pillow: "RGB", "L" or "CMYK".

    Returns:
        The pixels; None where Pillow is to convert them ("CMYK"), where the first thing that libjpeg warns of is
        harmless, which hides what it would warn of next, or where simplejpeg is not installed.

    Raises:
        DamagedJPEG: unless the caller set PIL.ImageFile.LOAD_TRUNCATED_IMAGES.
    """
    if simplejpeg is None or ImageFile.LOAD_TRUNCATED_IMAGES:
        return None
    space = "CMYK" if mode == "CMYK" else "RGB"
    try:
        pixels = simplejpeg.decode_jpeg(encoded, space, strict=True)
    except ValueError as error:
        if not _HARMLESS.search(str(error)):
            raise DamagedJPEG(str(error), encoded) from error
        return None
    return pixels if space == "RGB" else None
