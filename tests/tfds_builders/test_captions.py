"""Captions attached to what is prepared."""

import json
from pathlib import Path

import pytest

from jaxad.errors import DataError
from tfds_builders.captions import attach_captions
from tfds_builders.examine import Category
from tfds_builders.listing import Sample


def category(name: str, *images: tuple[str, str]) -> Category:
    samples = [
        Sample(split, Path(path), name, label=0, defect="good", image_id=f"{name}/{path}") for split, path in images
    ]
    return Category(name, tuple(samples), fingerprint="files")


@pytest.fixture
def categories() -> list[Category]:
    return [
        category("bolt", ("train", "0.png"), ("train", "1.png"), ("test", "2.png")),
        category("nut", ("train", "0.png"), ("validation", "1.png"), ("test", "2.png")),
    ]


def write(folder: Path, split: str, pairs: dict[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{split}_labels_parts_internvl.json").write_text(json.dumps([f"/data/{label}" for label in pairs]))
    file = folder / f"{split}_captions_parts_internvl.json"
    file.write_text(json.dumps(list(pairs.values())))
    return file


TRAIN = {"bolt/0.png": "a bolt", "bolt/1.png": "another bolt", "nut/0.png": "a nut"}


def captions_of(categories: list[Category]) -> list[str]:
    return [sample.caption for found in categories for sample in found.samples]


def test_training_images_alone(categories, tmp_path):
    write(tmp_path / "c", "train", TRAIN)
    found, notes = attach_captions(categories, tmp_path / "c")
    assert captions_of(found) == ["a bolt", "another bolt", "", "a nut", "", ""]
    assert notes == []
    assert [new.fingerprint for new in found] != [old.fingerprint for old in categories]


@pytest.mark.parametrize("as_file", [False, True])
def test_training_and_test_images(categories, tmp_path, as_file):
    file = write(tmp_path / "c", "train", TRAIN)
    write(tmp_path / "c", "test", {"bolt/2.png": "a broken bolt", "nut/2.png": "a broken nut"})
    found, notes = attach_captions(categories, file if as_file else tmp_path / "c")
    assert captions_of(found) == ["a bolt", "another bolt", "a broken bolt", "a nut", "", "a broken nut"]
    assert notes == []


def test_captions_of_another_data_set_are_refused(categories, tmp_path):
    write(tmp_path / "c", "train", {"screw/0.png": "a screw"})
    with pytest.raises(
        DataError, match=r"none of the images .*train: .*/data/screw/0\.png, the images with bolt/0\.png"
    ):
        attach_captions(categories, tmp_path / "c")


def test_coco_files(tmp_path):
    categories = [category("coco", ("train", "000000000009.jpg"), ("test", "000000000139.jpg"))]
    for part, image in (("train", 9), ("val", "139")):
        entries = [
            {"id": 0, "image_id": image, "caption": part},
            {"id": 1, "image_id": 7, "caption": "of another split"},
        ]
        (tmp_path / f"captions_{part}2017_blip.json").write_text(json.dumps({"annotations": entries}))
    found, notes = attach_captions(categories, tmp_path / "captions_train2017_blip.json")
    assert captions_of(found) == ["train", "val"]
    assert notes == []
    found, _ = attach_captions(categories, tmp_path / "captions_val2017_blip.json")
    assert captions_of(found) == ["", "val"]


def test_lists_in_another_order_name_the_same_images(categories, tmp_path):
    test = {"nut/2.png": "a", "bolt/2.png": "b"}
    write(tmp_path / "sorted", "train", TRAIN)
    write(tmp_path / "sorted", "test", dict(reversed(test.items())))
    write(tmp_path / "shuffled", "train", dict(reversed(TRAIN.items())))
    write(tmp_path / "shuffled", "test", test)
    found = [captions_of(attach_captions(categories, tmp_path / folder)[0]) for folder in ("sorted", "shuffled")]
    assert found[0] == found[1] == ["a bolt", "another bolt", "b", "a nut", "", "a"]


def test_images_without_caption_get_the_empty_one(categories, tmp_path):
    write(tmp_path / "c", "train", {"bolt/1.png": "a", "screw/0.png": "b"})
    write(tmp_path / "c", "test", {"bolt/2.png": "c"})
    found, notes = attach_captions(categories, tmp_path / "c")
    assert captions_of(found) == ["", "a", "c", "", "", ""]
    assert [(note.kind, note.detail.split()[0], note.fatal) for note in notes] == [
        ("missing caption", "bolt/0.png", False),
        ("missing caption", "nut/0.png", False),
        ("surplus caption", "screw/0.png", False),
        ("missing caption", "nut/2.png", False),
    ]


def test_what_does_not_fit(categories, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no file train_captions_"):
        attach_captions(categories, tmp_path / "empty")
