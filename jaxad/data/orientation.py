"""EXIF orientation: how the file of an image asks to be turned before it is seen."""

from __future__ import annotations

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UPRIGHT = 1
_ON_ITS_SIDE = {_TURNS[value] for value in (5, 6, 7, 8)}


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """What an opened file asks for; None where it is stored as it is to be seen. Does not decode it."""
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, _UPRIGHT))


def upright(image: Image.Image) -> Image.Image:
    """The image as it is to be seen."""
    turn = turn_of(image)
    # PIL would copy an image that is upright already.
    return image if turn is None else image.transpose(turn)


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of `upright`, without decoding the image."""
    width, height = image.size
    return (height, width) if turn_of(image) in _ON_ITS_SIDE else (width, height)
