"""Files are opened once, and what is found in them is remembered; counted from loading to a whole run."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

import jaxad
from jaxad.config import DataConfig
from jaxad.data import files as files_module
from jaxad.data.batches import batches
from jaxad.data.dataset import load
from jaxad.data.files import Facts, Files, content_digest, file_state, read_file
from jaxad.data.folder import FolderSource
from jaxad.data.images import ImageList
from jaxad.data.pixels import pixel_digest
from jaxad.errors import DataError
from jaxad.testing import toy_model, toy_training
from jaxad.types import Record, View
from tests.data.counting import counted

VIEWS = {"small": View(8, 6), "sharp": View(16, 16, "bicubic")}
CONFIG = DataConfig(holdout=0.3)


@pytest.fixture
def parts(tree):
    """14 normal images, 3 defective ones, 3 masks."""
    tree.category("c", train=12, good=2, bad=3)
    return tree.root


def images(counts):
    """How often each image, and how often each mask, was opened."""
    of_masks = {path for path in counts.opened if "ground_truth" in path.parts}
    pictures = {path: n for path, n in counts.opened.items() if path.suffix == ".png" and path not in of_masks}
    return [list(pictures.values()), [counts.opened[path] for path in of_masks]]


@pytest.mark.parametrize("workers", [1, 3])
def test_loading_opens_and_decodes_everything_once(parts, workers):
    with counted(parts) as counts:
        load(f"folder:{parts}", config=DataConfig(holdout=0.3, workers=workers))
    assert images(counts) == [[1] * 17, [1] * 3]
    assert sorted(counts.decoded.values()) == [1] * 20


def test_a_pass_over_what_was_loaded_opens_everything_once_more(parts):
    dataset = load(f"folder:{parts}", config=CONFIG)
    with counted(parts) as counts:
        for source in (dataset.train, dataset.holdout, dataset.test):
            digests = [source.digest(index) for index in range(len(source))]
            fingerprints = [source.fingerprint(index) for index in range(len(source))]
            assert len({*digests}) == len({*fingerprints}) == len(source)
    assert not counts.opened
    with counted(parts) as counts:
        for source in (dataset.train, dataset.holdout, dataset.test):
            list(batches(source, VIEWS, 4, originals=True))
        for index in range(len(dataset.test)):
            dataset.test.mask(index)
    assert images(counts) == [[1] * 17, [1] * 3]
    assert sorted(counts.decoded.values()) == [1] * 20


def test_a_run_opens_each_image_twice(parts, tmp_path):
    with counted(parts) as counts:
        dataset = load(f"folder:{parts}", config=CONFIG)
        jaxad.fit(toy_model(), dataset.train, toy_training(), workdir=tmp_path / "run", holdout=dataset.holdout)
    assert max(counts.opened.values()) == 2
    assert max(counts.decoded.values()) == 2
    trained = {record.file.resolve() for record in (*dataset.train.records, *dataset.holdout.records)}
    assert {path for path, number in counts.opened.items() if number == 2} == trained


def test_loose_images_are_opened_and_decoded_once(parts):
    with counted(parts) as counts:
        source = ImageList([parts / "c/train", parts / "c/test/good/000.png"])
        for loaded in batches(source, VIEWS, 5, originals=True, on_unreadable="mark"):
            assert all(original is not None for original in loaded.originals)
        for index in range(len(source)):
            source.fingerprint(index)
    assert images(counts) == [[1] * 13, []]
    assert list(counts.decoded.values()) == [1] * 13


def test_a_digest_costs_loose_images_one_more_opening(parts):
    source = ImageList(parts / "c/train")
    with counted(parts) as counts:
        digests = [source.digest(index) for index in range(len(source))]
        assert digests == [pixel_digest(source[index].image) for index in range(len(source))]
    assert images(counts) == [[2] * 12, []]


def test_a_digest_is_that_of_the_present_pixels(tree):
    file = tree.image("a.png", seed=1)
    source = FolderSource("one", (Record(file, "c"),))
    with counted(tree.root) as counts:
        first = source.digest(0)
        assert source.digest(0) == source.select([0]).digest(0) == first
    assert counts.opened[file.resolve()] == 1
    tree.image("a.png", seed=2)
    os.utime(file, ns=(0, 0))
    second = source.digest(0)
    assert second == pixel_digest(source[0].image) != first
    file.write_bytes(b"no image")
    assert source.digest(0) == content_digest(b"no image")


def test_a_change_while_a_file_is_read_is_noticed(tmp_path):
    file, files = tmp_path / "a.png", Files()
    file.write_bytes(b"first")
    state = file_state(file)
    file.write_bytes(b"longer")
    files.remember(file, state, Facts(b"of the first"))
    assert files.known(file) is None
    assert files.known(tmp_path / "gone.png") is None


def test_what_is_known_travels_between_processes(tmp_path):
    file, files = tmp_path / "a.png", Files()
    file.write_bytes(b"content")
    files.remember(file, file_state(file), Facts(b"digest", 12))
    assert pickle.loads(pickle.dumps(files)).known(file) == Facts(b"digest", 12)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: unreadable image: cannot open the file"):
        FolderSource("gone", (Record(tmp_path / "gone.png", "c"),)).digest(0)
    with pytest.raises(DataError, match=r"here: unreadable image: not a regular file"):
        read_file(tmp_path, "here")


def test_files_larger_than_any_image_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files_module, "LARGEST", 9)
    (tmp_path / "whole.png").write_bytes(bytes(9))
    (tmp_path / "large.png").write_bytes(bytes(10))
    assert read_file(tmp_path / "whole.png") == bytes(9)
    with pytest.raises(DataError, match=r"large\.png: unreadable image: larger than"):
        read_file(tmp_path / "large.png")


def test_the_hold_out_is_the_same_whether_or_not_images_were_read_before(parts):
    verified, listed = load(f"folder:{parts}", config=CONFIG), load(f"folder:{parts}", config=CONFIG, verify=False)
    assert verified.holdout.records == listed.holdout.records
    np.testing.assert_array_equal(verified.train[0].image, listed.train[0].image)
