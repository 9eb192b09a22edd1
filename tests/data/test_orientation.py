"""Turning images as their files ask for, by Pillow and as arrays."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxad.data.orientation import turned, turned_pixels, upright, upright_size

PIXELS = np.arange(35, dtype=np.uint8).reshape(5, 7)


@pytest.mark.parametrize("value", [*range(1, 9), 0, 9, 77])
def test_pixels_and_images_are_turned_alike(value):
    stored = Image.fromarray(PIXELS)
    stored.getexif()[0x0112] = value
    expected = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(turned_pixels(PIXELS, like=stored), expected)
    np.testing.assert_array_equal(turned(Image.fromarray(PIXELS), like=stored), expected)
    assert upright_size(stored) == expected.shape[::-1]


@pytest.mark.parametrize("kept_in", ["exif", "xmp"])
def test_an_image_is_turned_once(kept_in):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(PIXELS)
    stored.info[kept_in] = exif.tobytes() if kept_in == "exif" else b'tiff:Orientation="6"'
    once = upright(stored)
    assert once.size == (5, 7)
    assert upright(once).size == (5, 7)
    # The one that was given still says it.
    assert upright(stored).size == (5, 7)
