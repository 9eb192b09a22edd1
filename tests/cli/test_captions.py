"""Captions of test images, attached for detectors that they condition."""

from types import SimpleNamespace

import pytest

from jaxad.cli._captions import described_test
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
    return write_captions(folder, "parts", "vlm", "pd", split, ids, lambda start: ["a disc"] * (len(ids) - start))


def test_captions_of_test_images_are_attached_and_missing_ones_counted(parts, tmp_path, said):
    ids = [record.identity for record in parts.test.records]
    folder = written(tmp_path, ids[3:])
    test, recorded = described_test(parts.test, folder, [detector("train"), detector("always")], Reporter())
    assert [record.caption for record in test.records] == [""] * 3 + ["a disc"] * (len(ids) - 3)
    assert recorded == {"test_captions": {"source": str(folder), "images": len(ids), "missing": 3}}
    assert said == [f'3 of {len(ids)} test images have no caption; "" stands for it']


def test_captions_stored_with_the_images_are_recorded(parts, said):
    test, recorded = described_test(parts.test, None, [detector("always")], Reporter())
    assert test is parts.test
    assert recorded["test_captions"] == {"source": None, "images": len(test), "missing": len(test)}
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

    def texts(start):
        return list(own.values())[::-1][start:]

    shuffled = write_captions(tmp_path, "parts", "vlm", "pd", "test", images[::-1], texts)
    found, _ = described_test(parts.test, shuffled, [detector("always")], Reporter())
    assert {record.identity: record.caption for record in found.records} == own


def test_captions_of_another_data_set_are_refused(parts, tmp_path):
    folder = written(tmp_path, ["screw/test/good/000.png"])
    with pytest.raises(
        DataError, match=r"none of the 16 test images has .*screw/test/good/000\.png, .*disc/test/blot/000"
    ):
        described_test(parts.test, folder, [detector("always")], Reporter())
