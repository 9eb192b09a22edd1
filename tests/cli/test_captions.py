"""Captions of test images, attached for detectors that they condition."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxad.cli._captions import (
    check_photos,
    described_normal,
    described_photos,
    described_test,
    read_given,
    unlike_the_threshold,
)
from jaxad.data import ImageList
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.files import kind_of
from jaxad.data.captions.writing import write_captions
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter


def detector(captions):
    return SimpleNamespace(inputs=SimpleNamespace(captions=captions))


@pytest.fixture
def said(monkeypatch):
    warnings = []
    monkeypatch.setattr(Reporter, "warn", lambda _, messages: warnings.extend(messages))
    return warnings


def written(folder, ids, split="test"):
    return write_captions(folder, "parts", "vlm", "pd", split, ids, lambda images: ["a disc"] * len(images))


def test_captions_of_test_images_are_attached_and_missing_ones_counted(parts, tmp_path, said):
    ids = [record.identity for record in parts.test.records]
    folder = written(tmp_path, ids[3:])
    given = Captions.load(folder, "test")
    test, recorded = described_test(parts.test, given, [detector("train"), detector("always")], Reporter())
    assert [record.caption for record in test.records] == [""] * 3 + ["a disc"] * (len(ids) - 3)
    assert recorded == {"test_captions": {"source": str(folder), "kind": "vlm, pd", "images": len(ids), "missing": 3}}
    assert said == [f'3 of {len(ids)} test images have no caption ({", ".join(ids[:3])}); "" stands for it']


def test_captions_stored_with_the_images_are_recorded(parts, said):
    test, recorded = described_test(parts.test, None, [detector("always")], Reporter())
    assert test is parts.test
    assert recorded["test_captions"] == {"source": None, "kind": "", "images": len(test), "missing": len(test)}
    assert len(said) == 1


def test_detectors_without_captions_take_none(parts, tmp_path, said):
    others = [detector("train"), detector("never")]
    assert described_test(parts.test, None, others, Reporter()) == (parts.test, {})
    assert said == []
    with pytest.raises(ConfigError, match=r"--captions .*captions=always"):
        described_test(parts.test, Captions("captions", (), ()), others, Reporter())


def test_lists_in_another_order_give_every_image_its_own(parts, tmp_path):
    images = [record.identity for record in parts.test.records]
    own = {image: f"number {place}" for place, image in enumerate(images)}

    shuffled = write_captions(tmp_path, "parts", "vlm", "pd", "test", images[::-1], lambda given: map(own.get, given))
    found, _ = described_test(parts.test, Captions.load(shuffled, "test"), [detector("always")], Reporter())
    assert {record.identity: record.caption for record in found.records} == own


def test_captions_of_another_data_set_are_refused(parts, tmp_path):
    folder = written(tmp_path, ["screw/test/good/000.png"])
    with pytest.raises(
        DataError, match=r"none of the 16 test images has .*screw/test/good/000\.png, .*disc/test/blot/000"
    ):
        described_test(parts.test, Captions.load(folder, "test"), [detector("always")], Reporter())


def test_photos_have_the_captions_whose_labels_end_their_paths(tmp_path, said):
    labels = ["disc/test/good/000.png", "disc/test/blot/000.png", "000.png", "tile/test/good/000.png"]
    names = ["disc/test/blot/000.png", "disc/test/good/000.png", "screw/test/good/000.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).touch()
    folder = write_captions(tmp_path, "parts", "vlm", "pd", "test", labels, lambda images: images)
    # Below the folder that is given, two images have one name, and the third has that of a tile.
    photos = ImageList([tmp_path / "in/disc/test/blot", *(tmp_path / "in" / name for name in names[1:])])
    captions = Captions.load(folder, "test")
    recorded = described_photos(photos, captions)
    assert [record.caption for record in photos.records] == [*names[:2], ""]
    assert recorded == {"source": str(folder), "kind": "vlm, pd", "images": 3, "missing": 1}
    meta = {"data": {"captions": record("vlm, pd")}}
    check_photos(photos, captions, meta, Reporter(), decides=True)
    assert said == [f'1 of 3 images have no caption ({tmp_path / "in" / names[2]}); "" stands for it']
    with pytest.raises(DataError, match=r"no image has a caption there; .*disc/test/good/000"):
        described_photos(ImageList(tmp_path / "in/screw"), captions)
    with pytest.raises(ConfigError, match=r"measured with captions of vlm, pa, and here are captions of vlm, pd"):
        check_photos(photos, captions, {"data": {"captions": record("vlm, pa")}}, Reporter(), decides=True)
    bare = ImageList(tmp_path / "in/screw")
    check_photos(bare, None, meta, Reporter(), decides=False)
    assert said[1:] == ['1 of 1 images have no caption; "" stands for it; give them with --captions']


def test_files_of_captions_and_who_takes_them_are_checked_at_once(tmp_path):
    takes, takes_none = SimpleNamespace(captions="always"), SimpleNamespace(captions="train")
    folder = written(tmp_path, ["disc/test/good/000.png"])
    assert read_given(None, "test", takes_none) is None
    assert len(read_given(folder, "test", takes)) == len(read_given(folder, "test")) == 1
    with pytest.raises(ConfigError, match=r"--captions .*captions=always"):
        read_given(folder, "test", takes_none)
    with pytest.raises(ConfigError, match=r"captions=always"):
        read_given(folder, "test", SimpleNamespace())
    (folder / "test_captions_parts_vlm.json").write_text("[3]")
    (folder / "test_labels_parts_vlm.json").write_text("{")
    with pytest.raises(DataError, match=r"damaged JSON") as wrong:
        read_given(folder, "test", takes)
    with pytest.raises(ConfigError) as both:
        read_given(folder, "test", takes_none)
    assert "captions=always" in str(both.value)
    assert str(wrong.value) in str(both.value)


def record(kind="", described=3):
    return {"source": None, "kind": kind, "images": 3, "missing": 3 - described}


@pytest.mark.parametrize(
    ("measured", "now", "fits"),
    [
        (record("vlm, pd"), record("vlm, pd", 1), True),
        (record("vlm, pd"), record("vlm, pa"), False),
        (record("vlm, pd"), record("vlm, pd", 0), False),
        (record("vlm, pd"), {}, False),
        (record(described=0), record("vlm, pd"), False),
        (record(described=0), {}, True),
        # The names of its files do not tell how it was made.
        (record("vlm, pd"), record(), True),
        (record(), record(described=0), False),
    ],
)
def test_a_threshold_holds_for_captions_of_its_own_kind(measured, now, fits):
    meta = {"data": {"captions": measured}}
    assert (unlike_the_threshold(meta, detector("always"), now) == "") == fits
    assert unlike_the_threshold(meta, detector("train"), now) == ""
    assert unlike_the_threshold({"data": {}}, detector("always"), now) == ""


def test_a_threshold_is_measured_anew_with_captions_of_its_own_kind(parts, tmp_path, said):
    ids = [record.identity for record in parts.train.records]
    folder = written(tmp_path, ids, "train")
    meta = {"data": {"captions": record("vlm, pd")}}
    given, takes = Captions.load(folder), SimpleNamespace(captions="always")
    (normal,) = described_normal([parts.train], given, meta, takes, Reporter())
    assert {record.caption for record in normal.records} == {"a disc"}
    with pytest.raises(ConfigError, match=r"measured with captions of vlm, pd, and here are none"):
        described_normal([parts.train], None, meta, takes, Reporter())
    assert described_normal([parts.train], None, meta, SimpleNamespace(captions="train"), Reporter()) == [parts.train]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("mvtec_ad_captions_internvl2-8b_pd", "internvl2-8b, pd"),
        ("coco_ad_captions_vlm_coco/test_captions_coco_ad_vlm.json", "vlm, coco"),
        # The authors' short names, and their folder for COCO, whose prompt is always the same.
        ("annotations/captions_val2017_internvl.json", "internvl2-8b, coco"),
        ("coco_captions_deepseekvl_pd", "deepseek-vl-1.3b-chat, coco"),
        ("realiad_captions_blip_pa", "blip2-flan-t5-xxl, pa"),
        ("annotations/captions_val2017.json", ""),
        ("texts", ""),
    ],
)
def test_names_tell_how_captions_were_made(path, kind):
    assert kind_of(Path(path)) == kind
