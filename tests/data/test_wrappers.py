"""Sources that are made of others offer whatever anybody asks of a source beyond its protocol."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data import ImageList, JoinedSource, Tiling
from jaxad.data.source import ImageSource
from jaxad.data.tiles import TiledSource
from jaxad.errors import DataError
from jaxad.testing import make_parts

SIDE = 56
WRAPPERS = {
    JoinedSource: lambda *parts: JoinedSource(parts),
    TiledSource: lambda source: TiledSource(source, Tiling(32)),
}
ASKED = ("source", "part", "parts")
"""What sources are called where they are asked for more than the protocol has."""


def capabilities() -> set[str]:
    """Names that the library looks for in a source with `getattr` or `hasattr`."""
    found = set()
    for file in Path(jaxad.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr"):
                of, name = node.args[:2]
                called = getattr(of, "attr", getattr(of, "id", ""))
                if called in ASKED and isinstance(name, ast.Constant):
                    found.add(name.value)
    return found


def wrappers() -> set[type]:
    """Classes of jaxad.data that have images of other sources."""
    found = set()
    for module in pkgutil.walk_packages(jaxad.data.__path__, "jaxad.data."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and {"fingerprint", "digest", "mask"} <= set(dir(value)):
                found.add(value)
    return {each for each in found if each.__module__.startswith("jaxad.data") and not issubclass(each, ImageSource)}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = make_parts(tmp_path_factory.mktemp("parts"), ("disc",), train=2, test=2, size=SIDE)
    for file in root.rglob("*_mask.png"):
        Image.fromarray(np.asarray(Image.open(file)) // 51).save(file)
    return jaxad.data.load(f"folder:{root}").test


def test_all_wrappers_are_tested():
    assert wrappers() - {ImageList} == set(WRAPPERS)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", sorted(capabilities()))
def test_a_wrapper_offers_whatever_is_asked_for(source, wrapper, name):
    assert {"depths", "at_depths", "gray_mask", "size", "tiling"} <= capabilities()
    assert hasattr(WRAPPERS[wrapper](source), name)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gray_values_and_sizes_are_those_of_the_images(source, wrapper):
    made = WRAPPERS[wrapper](source)
    masks = [made.gray_mask(index) for index in range(len(made))]
    assert max(mask.max() for mask in masks if mask is not None) == 5
    for index, mask in enumerate(masks):
        assert made.size(index) == made[index].image.shape[:2]
        plain = made.mask(index)
        assert (mask is None) == (plain is None)
        if mask is not None:
            np.testing.assert_array_equal(mask > 0, plain)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_selection_has_the_images_of_those_places_in_that_order(source, wrapper):
    made = WRAPPERS[wrapper](source)
    places = [len(made) - 1, 1, 2]
    chosen = made.select(places)
    assert chosen.records == tuple(made.records[place] for place in places)
    for sample, place in zip((chosen[index] for index in range(3)), places, strict=True):
        np.testing.assert_array_equal(sample.image, made[place].image)


def test_a_selection_of_parts_whose_images_have_the_same_names_goes_by_their_places(source):
    """Names may repeat: what is chosen of one part is not what is called the same in another."""
    other = source.select([1, 0, 2], "other")
    made = JoinedSource([source, other])
    places = [len(source), 1, len(source) + 1, 0, len(source) - 1]
    chosen = made.select(places)
    for sample, place in zip((chosen[index] for index in range(len(places))), places, strict=True):
        np.testing.assert_array_equal(sample.image, made[place].image)


def test_parts_without_gray_values_or_sizes_are_joined_all_the_same(source):
    loose = ImageList([np.zeros((7, 9, 3), np.uint8)])
    made = JoinedSource([loose, source])
    assert [made.size(index) for index in (0, 1)] == [(7, 9), (SIDE, SIDE)]
    assert made.gray_mask(0) is None


def test_tiles_are_joined_to_tiles_alone(source):
    tiles = TiledSource(source, Tiling(32))
    assert JoinedSource([tiles, tiles]).tiling == Tiling(32)
    assert JoinedSource([source]).tiling is None
    with pytest.raises(DataError, match="different tiles"):
        JoinedSource([tiles, source])
