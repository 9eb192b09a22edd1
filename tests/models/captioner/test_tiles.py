"""Tiles of images."""

import numpy as np
import pytest
from PIL import Image

from jaxad.models.captioner.tiles import grid, rounded_up, tiles


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (448, 448, (1, 1)),
        (700, 700, (2, 2)),
        (1024, 1024, (3, 3)),
        (900, 900, (2, 2)),
        (600, 1200, (1, 2)),
        (1200, 2400, (2, 4)),
        (3000, 1000, (6, 2)),
        (100, 5000, (1, 12)),
        (1000, 1500, (2, 3)),
        (1024, 1280, (3, 4)),
    ],
)
def test_grids_of_the_published_rule(height, width, expected):
    """By hand: the nearest aspect ratio, of equally near ones the largest of less than twice the image's pixels."""
    assert grid(height, width, 448, 1, 12) == expected


def test_fewest_tiles():
    assert grid(100, 100, 448, 4, 12) == (2, 2)
    assert grid(100, 100, 448, 1, 1) == (1, 1)


def test_tiles_are_those_of_the_resized_image_row_by_row():
    image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    found = tiles(image, 28, 1, 12, True)
    resized = np.asarray(Image.fromarray(image).resize((84, 56), Image.Resampling.BICUBIC))
    assert found.shape == (7, 28, 28, 3)
    np.testing.assert_array_equal(found[1], resized[:28, 28:56])
    np.testing.assert_array_equal(found[3], resized[28:, :28])
    np.testing.assert_array_equal(
        found[6], np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC))
    )
    assert len(tiles(image, 28, 1, 12, False)) == 6


def test_one_tile_has_no_thumbnail():
    image = np.zeros((30, 30, 3), np.uint8)
    assert tiles(image, 28, 1, 12, True).shape == (1, 28, 28, 3)


def test_programs_are_compiled_for_few_numbers_of_tiles():
    sizes = [rounded_up(count, 13) for count in (1, *range(3, 14))]
    assert sizes == [1, 4, 4, 7, 7, 7, 10, 10, 10, 13, 13, 13]
    assert [rounded_up(count, 5) for count in (1, 3, 5)] == [1, 4, 5]
