"""Pictures of many images in bounded memory."""

import weakref

import numpy as np
import pytest

from jaxad.inference.album import Album
from jaxad.inference.maps import fit_map
from jaxad.inference.results import Shown
from jaxad.io.pictures import shrink

DRAW = np.random.default_rng(0)
SIDES = (80, 40, 20)


def picture(side=100):
    return Shown(
        DRAW.integers(0, 256, (side, side, 3), np.uint8), DRAW.random((64, 64), np.float32), np.eye(side, dtype=bool)
    )


def test_few_pictures_are_as_large_as_they_may_be():
    album, given = Album(SIDES, 1_000_000), picture()
    album.add(7, given)
    (kept,) = album.pictures.values()
    np.testing.assert_array_equal(kept.image, shrink(given.image, 80))
    np.testing.assert_array_equal(kept.map, given.map)
    assert kept.mask is not None
    assert kept.mask.shape == (80, 80)
    assert album.nbytes == 80 * 80 * 4 + 64 * 64 * 4


@pytest.mark.parametrize(("number", "side"), [(2, 80), (3, 40), (6, 40), (7, 20), (26, 20)])
def test_many_pictures_are_smaller_alike(number, side):
    # One of 80 pixels takes 42 kB, of 40 pixels 12.8 kB, of 20 pixels 3.2 kB.
    album = Album(SIDES, 84_000)
    for index in range(number):
        album.add(index, picture())
        assert album.nbytes <= 84_000
    assert list(album.pictures) == list(range(number))
    for kept in album.pictures.values():
        assert kept.image.shape == (side, side, 3)
        assert kept.map.shape == (min(side, 64),) * 2
        assert kept.mask is not None
        assert kept.mask.shape == (side, side)


def test_maps_are_made_smaller_with_their_picture():
    album, given = Album((80, 20), 40_000), picture()
    album.add(0, given)
    np.testing.assert_array_equal(album.pictures[0].map, fit_map(given.map, (20, 20)))


def test_the_first_ones_have_their_place_and_none_comes_after_one_that_had_no_room():
    album = Album(SIDES, 84_000)
    for index in range(40):
        album.add(index, picture())
    album.add(40, picture(side=2))
    assert list(album.pictures) == list(range(26))
    assert album.nbytes <= 84_000


def test_what_a_picture_was_taken_from_is_not_held():
    batch = DRAW.random((16, 64, 64), np.float32)
    album, alive = Album(SIDES, 1_000_000), weakref.ref(batch)
    album.add(0, Shown(picture().image, batch[3]))
    del batch
    assert alive() is None
    assert album.pictures[0].mask is None
