"""The demo data set, made of the packages of the `demo` extra."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from jaxad.config import DataConfig
from jaxad.data import load
from jaxad.data.decode import decode_image, decode_mask
from jaxad.data.demo.dataset import EDGE, FLOOR, KINDS, NOTES, VERSION, DemoCounts, make_demo, read_notes
from jaxad.errors import DataError

SMALL = DemoCounts(
    solar_train=6,
    solar_normal=2,
    solar_defective=3,
    texture_train=6,
    texture_normal=2,
    texture_defective=12,
    texture_validation=3,
)
CATEGORIES = ("brick", "grass", "gravel", "solar_mono", "solar_poly")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return make_demo(tmp_path_factory.mktemp("cache") / "deep/demo", counts=SMALL)


def test_it_is_a_sound_folder_in_mvtec_layout(demo):
    data = load(f"folder:{demo}", config=DataConfig(holdout=0))
    assert data.problems == ()
    solar = {"train": 6, "holdout": 0, "test_normal": 2, "test_anomalous": 3, "masks": 0}
    texture = {"train": 9, "holdout": 0, "test_normal": 2, "test_anomalous": 12, "masks": 12}
    assert data.counts == {**dict.fromkeys(CATEGORIES[:3], texture), **dict.fromkeys(CATEGORIES[3:], solar)}
    for name, kinds in KINDS.items():
        assert {r.defect for r in data.test.filter([name]).records if r.label} == set(kinds)


def test_it_says_which_defects_are_drawn_and_who_owns_what(demo):
    data = load(f"folder:{demo}", config=DataConfig(holdout=0))
    drawn = {name: note["defects"] for name, note in data.notes["categories"].items()}
    assert drawn == {**dict.fromkeys(CATEGORIES[:3], "drawn"), **dict.fromkeys(CATEGORIES[3:], "real")}
    assert [note.split(" are ")[1][:5] for note in data.notes["notes"]] == ["drawn", "real;"]
    assert all(name in data.notes["notes"][0] for name in CATEGORIES[:3])
    assert "CC BY-NC-SA 4.0" in data.license
    assert "CC0" in data.license


def test_solar_cells_are_the_originals(demo):
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.origin is not None
    files = sorted(demo.glob("solar_*/*/*/*.png"))
    assert len(files) == len({file.name for file in files}) == 22
    source = Path(spec.origin).parent / "data"
    rows = (line.split() for line in (source / "labels.csv").read_text().splitlines())
    labels = {file.removeprefix("images/"): (float(chance), kind) for file, chance, kind in rows}
    for file in files:
        assert file.read_bytes() == (source / "images" / file.name).read_bytes()
        chance, kind = labels[file.name]
        assert chance == (1.0 if file.parent.name == "defective" else 0.0)
        assert f"solar_{kind}" in file.parts


def test_masks_mark_the_drawn_defects(demo):
    for file in demo.glob("*/test/*/*.png"):
        if file.parts[-4] in KINDS and file.parent.name != "good":
            mask = decode_mask(demo / file.parts[-4] / "ground_truth" / file.parent.name / f"{file.stem}_mask.png")
            assert mask.shape == decode_image(file).shape[:2]
            assert 0.001 < mask.mean() < 0.2


def test_training_and_test_tiles_come_from_disjoint_regions(monkeypatch, tmp_path):
    # Every quarter of rows and columns has a number of its own: a region tells where it was cut.
    columns, rows = np.arange(512) >= EDGE, np.arange(512) >= FLOOR
    ramp = (2 * rows[:, None] + columns[None, :]).astype(np.uint8)
    tiles = []
    monkeypatch.setattr("jaxad.data.demo.dataset._texture", lambda data, name: ramp)
    monkeypatch.setattr(
        "jaxad.data.demo.dataset._tile", lambda region, rng, turns: tiles.append(region) or region[:160, :160]
    )
    monkeypatch.setattr("jaxad.data.demo.dataset._write_solar", lambda *_: None)
    make_demo(
        tmp_path / "demo",
        counts=DemoCounts(texture_train=1, texture_normal=1, texture_defective=0, texture_validation=1),
    )
    train, validation, test = tiles[:3]
    assert (set(np.unique(train)), set(np.unique(validation)), set(np.unique(test))) == ({0}, {2}, {1, 3})


def test_made_once_the_same_everywhere(demo, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in demo.rglob("*.png")}
    assert make_demo(demo, counts=SMALL) == demo
    assert {file: file.stat().st_mtime_ns for file in demo.rglob("*.png")} == before
    again = make_demo(tmp_path / "again", counts=SMALL)
    pictures = sorted(file.relative_to(demo) for file in demo.rglob("*.png"))
    assert pictures == sorted(file.relative_to(again) for file in again.rglob("*.png"))
    assert all((demo / file).read_bytes() == (again / file).read_bytes() for file in pictures)


def test_other_seeds_make_other_pictures(demo, tmp_path):
    other = make_demo(tmp_path / "other", counts=SMALL, seed=1)
    assert (other / "brick/train/good/000.png").read_bytes() != (demo / "brick/train/good/000.png").read_bytes()


def test_a_folder_in_use_is_left_alone(demo, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious.txt").write_text("mine")
    with pytest.raises(DataError, match="mine: holds something other"):
        make_demo(tmp_path / "mine", counts=SMALL)
    with pytest.raises(DataError, match="holds something other"):
        make_demo(demo, counts=DemoCounts(solar_train=7))
    assert (tmp_path / "mine/precious.txt").read_text() == "mine"


def test_an_interrupted_making_leaves_nothing(monkeypatch, tmp_path):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxad.data.demo.dataset._write_texture", fail)
    with pytest.raises(KeyboardInterrupt):
        make_demo(tmp_path / "demo", counts=SMALL)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    counts = DemoCounts(1, 1, 1, 1, 1, 1, 1)
    notes = json.loads((make_demo(tmp_path / "demo", counts=counts) / "demo.json").read_text())
    assert notes["counts"]["texture_defective"] == 1


def test_missing_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"elpv-dataset: pip install 'jaxad\[demo\]'"):
        make_demo(tmp_path / "demo")


def test_load_demo_uses_the_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("jaxad.data.demo.dataset.DemoCounts", lambda: SMALL)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = load("demo")
    assert data.name == "demo"
    assert data.categories == CATEGORIES
    assert data.train.records[0].file.is_relative_to(tmp_path / f"jaxad/demo-{VERSION}")
    assert load("demo", cache=tmp_path / f"jaxad/demo-{VERSION}").train == data.train


def test_hold_out_tiles_come_from_a_region_of_their_own(demo):
    data = load(f"folder:{demo}", config=DataConfig(holdout=0.1))
    held = {r.identity for r in data.holdout.filter(("brick", "grass", "gravel")).records}
    assert held == {f"{name}/validation/good/{i:03}.png" for name in CATEGORIES[:3] for i in range(3)}
    assert not held & {r.identity for r in data.train.records}


@pytest.mark.parametrize(
    "content",
    [
        *("[", "[]", '{"made_by": "jaxad"}', '{"made_by": "jaxad", "categories": []}', "[" * 100_000),
        '{"made_by": "jaxad", "categories": {"a": {"defects": 3}}}',
    ],
    ids=range(6),
)
def test_notes_of_anybody_else_say_nothing(tmp_path, content):
    (tmp_path / NOTES).write_text(content)
    assert read_notes(tmp_path) == {}
