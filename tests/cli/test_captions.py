"""Captions of test images, attached for detectors that they condition."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxad.cli._captions import described_normal, described_photos, described_test, unlike_the_threshold
from jaxad.data import ImageList
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
    test, recorded = described_test(parts.test, folder, [detector("train"), detector("always")], Reporter())
    assert [record.caption for record in test.records] == [""] * 3 + ["a disc"] * (len(ids) - 3)
    assert recorded == {"test_captions": {"source": str(folder), "kind": "vlm, pd", "images": len(ids), "missing": 3}}
    assert said == [f'3 of {len(ids)} test images have no caption; "" stands for it']


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
        described_test(parts.test, tmp_path, others, Reporter())


def test_lists_in_another_order_give_every_image_its_own(parts, tmp_path):
    images = [record.identity for record in parts.test.records]
    own = {image: f"number {place}" for place, image in enumerate(images)}

    shuffled = write_captions(tmp_path, "parts", "vlm", "pd", "test", images[::-1], lambda given: map(own.get, given))
    found, _ = described_test(parts.test, shuffled, [detector("always")], Reporter())
    assert {record.identity: record.caption for record in found.records} == own


def test_captions_of_another_data_set_are_refused(parts, tmp_path):
    folder = written(tmp_path, ["screw/test/good/000.png"])
    with pytest.raises(
        DataError, match=r"none of the 16 test images has .*screw/test/good/000\.png, .*disc/test/blot/000"
    ):
        described_test(parts.test, folder, [detector("always")], Reporter())


def test_photos_have_the_captions_whose_labels_end_their_paths(tmp_path, said):
    labels = ["disc/test/good/000.png", "disc/test/blot/000.png", "000.png", "tile/test/good/000.png"]
    names = ["disc/test/blot/000.png", "disc/test/good/000.png", "screw/test/good/000.png"]
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        (tmp_path / "in" / name).touch()
    folder = write_captions(tmp_path, "parts", "vlm", "pd", "test", labels, lambda images: images)
    # Below the folder that is given, two images have one name, and the third has that of a tile.
    photos = ImageList([tmp_path / "in/disc/test/blot", *(tmp_path / "in" / name for name in names[1:])])
    recorded = described_photos(photos, folder, detector("always"), Reporter())
    assert [record.caption for record in photos.records] == [*names[:2], ""]
    assert recorded == {"source": str(folder), "kind": "vlm, pd", "images": 3, "missing": 1}
    assert said == ['1 of 3 images have no caption; "" stands for it']
    with pytest.raises(DataError, match=r"no image has a caption there; .*disc/test/good/000"):
        described_photos(ImageList(tmp_path / "in/screw"), folder, detector("always"), Reporter())
    with pytest.raises(ConfigError, match=r"--captions .*captions=always"):
        described_photos(photos, folder, detector("train"), Reporter())


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
    (normal,) = described_normal([parts.train], folder, meta, detector("always"), Reporter())
    assert {record.caption for record in normal.records} == {"a disc"}
    with pytest.raises(ConfigError, match=r"measured with captions of vlm, pd, and here are none"):
        described_normal([parts.train], None, meta, detector("always"), Reporter())
    assert described_normal([parts.train], None, meta, detector("train"), Reporter()) == [parts.train]


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
