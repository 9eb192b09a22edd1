"""What reports say of the captions of training images."""

import pytest

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described
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
