"""What reports say of the captions of training images."""

import dataclasses

import pytest

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described, lacking, other_kind, record_of
from jaxad.data.captions.writing import write_captions
from jaxad.io.progress import Reporter


@pytest.fixture
def said(monkeypatch):
    warnings = []
    monkeypatch.setattr(Reporter, "warn", lambda _, messages: warnings.extend(messages))
    return warnings


def test_record_of_training_captions(parts, tmp_path, said):
    holdout = parts.holdout.records
    ids = sorted(record.identity for record in (*parts.train.records, *holdout))
    ids.append("tile/train/good/zzz.png")
    folder = write_captions(tmp_path, "parts", "vlm", "pd", "train", ids, lambda images: ["a disc"] * len(images))
    captions = Captions.load(folder)
    train = described(parts.train, captions)
    recorded = {"source": str(folder), "kind": "vlm, pd", "images": len(train), "missing": 0}
    assert caption_record(train, captions, "train", Reporter(), besides=holdout) == recorded
    # Those of the hold-out are not too many.
    assert said == ["1 captions are of no train image here, the first of tile/train/good/zzz.png"]


@pytest.mark.parametrize("vlm", ["internvl", "internvl2-8b"])
def test_a_threshold_holds_for_captions_of_the_same_captioner_whatever_it_was_called(vlm):
    now = {"kind": "internvl2-8b, pd", "images": 4, "missing": 0}
    assert other_kind({**now, "kind": f"{vlm}, pd"}, now) == other_kind(now, {**now, "kind": f"{vlm}, pd"}) == ""
    assert "captions of internvl2-8b, pa" in other_kind({**now, "kind": f"{vlm}, pa"}, now)


def test_images_without_caption_are_named_up_to_a_number(parts):
    bare = [dataclasses.replace(record, caption="") for record in parts.train.records]
    one = dataclasses.replace(bare[0], caption="a disc")
    names = ", ".join(record.identity for record in bare[1:6])
    assert lacking([one]) == lacking([]) == ""
    assert lacking([one, *bare[1:8]]) == f'7 of 8 images have no caption ({names} and 2 more); "" stands for it'
    assert lacking(bare[:2], "test images") == '2 of 2 test images have no caption; "" stands for it'
    assert record_of(None, [one, *bare[1:3]]) == {"source": None, "kind": "", "images": 3, "missing": 2}
