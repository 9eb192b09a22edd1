"""Regions: read from masks, JSON and flags, and scaled to every image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.data import Region
from jaxad.data.region import EVERY, given_regions, of_categories, read_region
from jaxad.errors import DataError
from jaxad.testing import make_parts

BOX = {"box": [2, 1, 6, 4]}


def box_mask(shape, x0, y0, x1, y1):
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_box_is_of_pixels_or_scaled_from_the_size_it_was_drawn_on():
    np.testing.assert_array_equal(Region.from_json(BOX).inside(10, 12), box_mask((10, 12), 2, 1, 6, 4))
    drawn = Region.from_json({**BOX, "size": [12, 10]})
    np.testing.assert_array_equal(drawn.inside(20, 24), box_mask((20, 24), 4, 2, 12, 8))
    two = Region.from_json({"boxes": [[0, 0, 1, 1], [3, 0, 4, 1]]}).inside(1, 5)
    np.testing.assert_array_equal(two, [[True, False, False, True, False]])


def test_a_mask_image_is_scaled_and_kept_exactly(tmp_path):
    mask = np.random.default_rng(0).random((10, 12)) > 0.5
    Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "roi.png")
    region = read_region(tmp_path / "roi.png")
    np.testing.assert_array_equal(region.inside(10, 12), mask)
    np.testing.assert_array_equal(region.inside(20, 24), mask.repeat(2, 0).repeat(2, 1))


def test_a_region_is_the_same_after_json(tmp_path):
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    for region in (Region.from_json({**BOX, "size": [12, 10]}), read_region(tmp_path / "m.png")):
        assert Region.from_json(json.loads(json.dumps(region.to_json()))) == region


def test_what_a_user_gives_is_a_file_json_or_a_region_by_category(tmp_path):
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    one.write_text(json.dumps(BOX))
    many.write_text(json.dumps({"a": BOX, "b": {"boxes": [[0, 0, 1, 1]]}}))
    assert given_regions(str(one)) == given_regions(json.dumps(BOX)) == {EVERY: Region.from_json(BOX)}
    assert set(given_regions(str(many))) == {"a", "b"}


@pytest.mark.parametrize(
    "text",
    [
        "nowhere.png",
        '{"box": [1, 2, 3]}',
        '{"box": [5, 0, 5, 3]}',
        '{"box": [-1, 0, 5, 3]}',
        '{"box": [0, 0, NaN, 3]}',
        '{"box": [0, 0, true, 3]}',
        '{"box": [0, 0, 1, 1], "size": [0, 4]}',
        '{"circle": [1, 2, 3]}',
        '{"boxes": []}',
        '{"box": [0, 0, 1e400, 1]}',
        '{"box": [0, 0, ' + "9" * 400 + ", 1]}",
        "{}",
        '{"bottle": {"box": "all"}}',
        '{"box": ',
    ],
)
def test_what_is_no_region_is_refused(text):
    with pytest.raises(DataError, match=r"roi|box"):
        given_regions(text)


def test_a_region_without_a_pixel_is_refused(tmp_path):
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "roi.png")
    with pytest.raises(DataError, match=r"roi\.png.*black"):
        read_region(tmp_path / "roi.png")


def test_regions_of_categories_that_are_not_there_are_all_named():
    regions = given_regions(json.dumps({"botle": BOX, "cup": BOX, "Dose": BOX}))
    with pytest.raises(DataError, match=r"(?s)'botle' is unknown \(did you mean bottle.*there are bottle, cup.*'Dose'"):
        of_categories(regions, ("bottle", "cup"))
    assert of_categories({EVERY: regions["cup"]}, ()) == {EVERY: regions["cup"]}
    assert set(of_categories({"cup": regions["cup"]}, ("bottle", "cup"))) == {"cup"}


def test_the_file_in_a_folder_is_of_its_category_and_no_image(tmp_path):
    root = make_parts(tmp_path, train=6, test=1)
    (root / "disc/roi.json").write_text(json.dumps(BOX))
    Image.fromarray(np.full((8, 8), 255, np.uint8)).save(root / "tile/ROI.png")
    data = jaxad.data.load(f"folder:{root}")
    assert set(data.regions) == {"disc", "tile"}
    assert data.regions["disc"] == Region.from_json(BOX)
    assert {problem.kind for problem in data.problems} == {"small hold-out"}
    assert "roi" in data.summary()
    (root / "tile/roi.json").write_text(json.dumps(BOX))
    with pytest.raises(DataError, match="ambiguous region"):
        jaxad.data.load(f"folder:{root}")


def test_a_mask_in_json_that_is_none_is_refused():
    for text in ("?", "AAAA"):
        with pytest.raises(DataError, match="here"):
            Region.from_json({"mask": text}, "here")
