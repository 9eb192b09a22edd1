"""Sheets: which images they show, what stands in which column, and that they leave no checkpoint loaded."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.errors import ConfigError, JaxadError
from jaxad.inference.heat import heat
from jaxad.inference.maps import fit_map
from jaxad.inference.predictor import Predictor
from jaxad.inference.sheet import GAP, HEAD, SIDE, Sheet, defective, named, sheet
from tests.inference.test_method import Plain, Redrawing


@pytest.fixture(scope="module")
def test(parts):
    return parts.test


def test_the_first_defective_images_of_each_category_are_taken(test):
    found = [test.records[number] for number in defective(test)]
    assert [(record.category, record.file.name) for record in found] == [
        ("disc", "000.png"),
        ("disc", "001.png"),
        ("tile", "000.png"),
        ("tile", "001.png"),
    ]
    assert all(record.label for record in found)
    assert len(defective(test, ("tile",), 3)) == 3


def test_images_are_named_by_the_ends_of_their_paths(test):
    (number,) = named(test, ["disc/test/blot/001.png"])
    assert test.records[number].file.as_posix().endswith("disc/test/blot/001.png")
    with pytest.raises(ConfigError) as error:
        named(test, ["001.png", "lot/001.png", "disc/test/blot/000.png"])
    said = str(error.value).splitlines()
    assert "4 images end so" in said[0]
    assert "no such image, such as disc/test/" in said[1]
    assert len(said) == 2


def test_columns_are_the_maps_of_each_detector_on_a_scale_of_their_own(test):
    chosen = defective(test)[::-1]
    made = sheet(test, [Redrawing(), Plain(), Redrawing()], chosen, batch_size=2)
    assert made.heads == ("image", "defect", "Redrawing 1", "Plain", "Redrawing 3")
    assert made.names == tuple(test.records[number].identity for number in chosen)
    (output,) = Predictor(Redrawing(), batch_size=2).stream(test, indices=chosen[:1])
    map = fit_map(output.maps[0], (56, 56))
    expected = heat(map, low=float(map.min()), high=float(map.max()))
    for column in (2, 3, 4):
        assert np.abs(made.rows[0][column].astype(int) - expected).max() <= 1
    image, defect = made.rows[0][:2]
    np.testing.assert_array_equal(image, test[chosen[0]].image)
    np.testing.assert_array_equal(defect[..., 0] > 0, test.mask(chosen[0]))
    assert sheet(test, [Plain()], chosen, names=("ours",)).heads[2:] == ("ours",)


def test_checkpoints_are_read_where_their_column_is_drawn(test, trained):
    made = sheet(test, [trained.workdir, trained.model], defective(test)[:1])
    assert made.heads[2:] == ("DPDiff-AD 1", "DPDiff-AD 2")
    np.testing.assert_array_equal(made.rows[0][2], made.rows[0][3])


@pytest.mark.usefixtures("few_collected")
def test_of_those_that_are_loaded_for_a_sheet_one_at_a_time_is_there(test, monkeypatch):
    loaded = []

    def load(kind, **_):
        gc.collect()
        assert [found() for found in loaded] == [None] * len(loaded)
        detector = {"plain": Plain, "redrawing": Redrawing}[kind]()
        loaded.append(weakref.ref(detector))
        return SimpleNamespace(detector=detector)

    monkeypatch.setattr("jaxad.inference.sheet.restore", load)
    made = sheet(test, ["plain", "redrawing", lambda: load("plain").detector], defective(test)[:1])
    assert made.heads[2:] == ("Plain 1", "Redrawing", "Plain 3")
    assert len(loaded) == 3


def test_a_sheet_is_one_picture(tmp_path):
    row = tuple(np.full((60, SIDE, 3), value, np.uint8) for value in (10, 200, 90))
    made = Sheet(("image", "defect", "Plain"), ("a.png", "b.png"), (row, row))
    with Image.open(made.save(tmp_path / "sheet.png")) as file:
        saved = np.asarray(file)
    assert saved.shape == (HEAD + 2 * (HEAD + 60 + GAP), 3 * (SIDE + GAP), 3)
    np.testing.assert_array_equal(saved, made.picture)
    second = HEAD + (HEAD + 60 + GAP) + HEAD
    for top in (2 * HEAD, second):
        assert [saved[top, column * (SIDE + GAP), 0] for column in range(3)] == [10, 200, 90]
    assert repr(made) == "<Sheet: 2 images, Plain>"
    assert made._repr_html_().startswith('<img alt="2 images" src="data:image/jpeg')
    with pytest.raises(JaxadError, match="bmp"):
        made.save(tmp_path / "sheet.bmp")


def test_rows_bear_their_names_and_of_long_ones_the_end():
    row = tuple(np.full((60, SIDE, 3), 90, np.uint8) for _ in range(2))

    def line(name):
        return Sheet(("image", "defect"), (name,), (row,)).picture[HEAD : 2 * HEAD]

    assert (line("a.png") != line("b.png")).any()
    assert (line("") == 255).all()
    long = "a folder/" * 40
    ends = [line(f"{long}{end}") for end in ("1.png", "2.png")]
    assert (ends[0] != ends[1]).any()
    assert (line(f"x{long}1.png") == ends[0]).all()


def test_what_cannot_be_shown_is_said(test):
    with pytest.raises(ConfigError, match="names = a b: 2 for 1"):
        jaxad.sheet(test, [Plain()], names=("a", "b"))
    with pytest.raises(ConfigError, match=r"chosen = \[99\]: .* 0 to 15"):
        jaxad.sheet(test, [Plain()], [0, 99])
    normal = test.select(i for i, record in enumerate(test.records) if not record.label)
    with pytest.raises(ConfigError, match="no defective images"):
        jaxad.sheet(normal, [Plain()])
