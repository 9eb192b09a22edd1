"""EXIF orientation: how the file of an image asks to be turned before it is seen."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image, ImageOps

_TAG = ExifTags.Base.Orientation
_UPRIGHT, _ON_ITS_SIDE = 1, (5, 6, 7, 8)
_TURNS = {
    1: lambda pixels: pixels,
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}


def is_turned(image: Image.Image) -> bool:
    """Whether an opened file is stored otherwise than it is to be seen. Does not decode it."""
    return 2 <= _orientation(image) <= 8


def upright(image: Image.Image) -> Image.Image:
    """The image as it is to be seen."""
    return turned(image, like=image)


def turned(image: Image.Image, *, like: Image.Image) -> Image.Image:
    """The image turned as the file of another one asks for."""
    # PIL would copy an image that is upright already.
    if not is_turned(like):
        return image
    bare = image.copy()
    # PIL writes all of EXIF anew, and fails where some of it is damaged.
    for name in ("exif", "Raw profile type exif"):
        bare.info.pop(name, None)
    bare.getexif()[_TAG] = _orientation(like)
    return ImageOps.exif_transpose(bare)


def turned_pixels(pixels: np.ndarray, *, like: Image.Image) -> np.ndarray:
    """Pixels [h w ...] as an opened file is stored, turned as it asks for; contiguous."""
    return np.ascontiguousarray(_TURNS[_orientation(like)](pixels))


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of `upright`, without decoding the image."""
    width, height = image.size
    return (height, width) if _orientation(image) in _ON_ITS_SIDE else (width, height)


def _orientation(image: Image.Image) -> int:
    value = image.getexif().get(_TAG, _UPRIGHT)
    return value if value in range(1, 9) else _UPRIGHT
