"""Captions that commands attach: their order, what is counted, what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest

from jaxad import cli
from jaxad.cli.captions import caption_record, captions_flags, described, described_test, load
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.files import write_captions
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter


def detector(captions):
    return SimpleNamespace(config=SimpleNamespace(captions=captions))


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
    # Configs of other systems have no such field.
    others = [detector("train"), SimpleNamespace(config=SimpleNamespace())]
    assert described_test(parts.test, None, others, Reporter()) == (parts.test, {})
    assert said == []
    with pytest.raises(ConfigError, match=r"--captions .*captions=always"):
        described_test(parts.test, tmp_path, others, Reporter())


def test_another_order_is_refused(parts, tmp_path):
    folder = written(tmp_path, [record.identity for record in parts.test.records][::-1])
    with pytest.raises(DataError, match="other order"):
        described_test(parts.test, folder, [detector("always")], Reporter())


def test_record_of_training_captions(parts, tmp_path, said):
    holdout = parts.holdout.records
    ids = sorted(record.identity for record in (*parts.train.records, *holdout))
    folder = written(tmp_path, [*ids, "tile/train/good/zzz.png"], "train")
    captions = Captions.load(folder)
    train = described(parts.train, captions)
    recorded = {"source": str(folder), "images": len(train), "missing": 0}
    assert caption_record(train, captions, "train", Reporter(), besides=holdout) == recorded
    # Those of the hold-out are not too many.
    assert said == ["1 captions are of no train image here, the first of tile/train/good/zzz.png"]


def test_captions_of_another_data_set_are_refused(parts, tmp_path):
    folder = written(tmp_path, ["screw/test/good/000.png"])
    with pytest.raises(
        DataError, match=r"none of the 16 test images has .*screw/test/good/000\.png, .*disc/test/blot/000"
    ):
        described_test(parts.test, folder, [detector("always")], Reporter())


def test_the_threshold_of_a_finished_checkpoint_comes_with_a_warning(parts, said, monkeypatch):
    """Its authors' training may have seen the hold-out."""
    monkeypatch.setattr("jaxad.cli.captions.load_data", lambda command, holdout: parts)
    words = ["fit", "vlmdiff", "--data", "demo", "--workdir", "run", "--model.checkpoint", "authors.ckpt"]
    finished: Any = cli.parse([*words, "--model.trained"])
    assert load(finished, Reporter())[0] is parts
    (warning,) = said
    assert "authors may have trained on" in warning
    said.clear()
    unfinished: Any = cli.parse(words)
    load(unfinished, Reporter())
    assert said == ['14 of 14 train images have no caption; "" stands for it']


def test_flags_of_the_evaluation_name_the_captions_that_it_needs(tmp_path):
    given = SimpleNamespace(captions=tmp_path)
    assert captions_flags(given, detector("always")) == ("--captions", tmp_path)
    # A file is of the training images.
    file = SimpleNamespace(captions=tmp_path / "captions_train2017_internvl.json")
    assert captions_flags(file, detector("always")) == ("--captions", "TEST_CAPTIONS")
    assert captions_flags(given, detector("train")) == captions_flags(SimpleNamespace(), detector("always")) == ()
