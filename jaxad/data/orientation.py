"""EXIF orientation: how the file of an image asks to be turned before it is seen."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image

_TAG = ExifTags.Base.Orientation
_STEPS = (Image.Transpose.TRANSPOSE, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.FLIP_LEFT_RIGHT)
_TURNS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Of each value of the tag, which of the steps to take: rows to columns, then upside down, then left to right."""
_SAYING_SO = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")


def upright(image: Image.Image) -> Image.Image:
    """The image as it is to be seen."""
    return turned(image, like=image)


def turned(image: Image.Image, *, like: Image.Image) -> Image.Image:
    """The image turned as the file of another one asks for."""
    needs = _TURNS[_orientation(like)]
    if not any(needs):
        return image
    for step, needed in zip(_STEPS, needs, strict=True):
        image = image.transpose(step) if needed else image
    for name in _SAYING_SO:
        image.info.pop(name, None)
    return image


def turned_pixels(pixels: np.ndarray, *, like: Image.Image) -> np.ndarray:
    """Pixels [h w ...] as an opened file is stored, turned as it asks for; contiguous."""
    swapped, flipped, mirrored = _TURNS[_orientation(like)]
    pixels = pixels.swapaxes(0, 1) if swapped else pixels
    return np.ascontiguousarray(pixels[:: -1 if flipped else 1, :: -1 if mirrored else 1])


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of `upright`, without decoding the image."""
    width, height = image.size
    return (height, width) if _TURNS[_orientation(image)][0] else (width, height)


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_TAG, 1)
    return value if value in range(1, 9) else 1
