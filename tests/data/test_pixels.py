"""Renderings of an image at the size of a view."""

import numpy as np
import pytest
from PIL import Image

from jaxad.data.pixels import resize
from jaxad.types import View


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (61, 90), (60, 60)])
def test_the_middle_is_that_of_openclip(shape):
    """Shorter side to 30, then the middle 30 x 30, but for rounding to whole pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([2 * x, 2 * y, x + y], axis=-1).astype(np.uint8)
    found = resize(image, View(30, 30, "bicubic", crop=True)).astype(int)
    scale = 30 / min(shape)
    size = (int(shape[1] * scale), int(shape[0] * scale))
    left, top = round((size[0] - 30) / 2), round((size[1] - 30) / 2)
    whole = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC), int)
    expected = whole[top : top + 30, left : left + 30]
    # A step from pixel to pixel is 4 to 6 gray levels.
    assert np.abs(found - expected)[1:-1, 1:-1].max() <= 2
    stretched = resize(image, View(30, 30, "bicubic")).astype(int)
    assert (np.abs(found - stretched).max() < 3) == (shape == (60, 60))
