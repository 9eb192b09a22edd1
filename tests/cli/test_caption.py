"""`jaxad caption` from its command line; the tests of what it calls do the work itself."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from jaxad.data.captions.attach import Captions
from jaxad.detectors.vlmdiff import captioning
from jaxad.testing import make_parts
from tests.cli.shell import failure, jaxad


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"folder:{make_parts(tmp_path_factory.mktemp('shop') / 'parts', ('disc',), train=3, test=1)}"


def test_caption(data, tmp_path, monkeypatch, capsys):
    asked = {}

    def made_up(model, prompt, *, max_new_tokens):
        asked.update(model=model, prompt=prompt, max_new_tokens=max_new_tokens)
        return lambda images: ["a dark disc", *[""] * (len(images) - 1)]

    monkeypatch.setattr("jaxad.models.captioner.hugging_face.HuggingFaceCaptioner", made_up)
    words = ("caption", "--data", data, "--model", "org/VLM", "--prompt", "pa", "--out", tmp_path)
    jaxad(*words, "--max-new-tokens", 50)
    assert asked == {"model": "org/VLM", "prompt": captioning.PROMPTS["pa"], "max_new_tokens": 50}
    output = capsys.readouterr()
    assert f"{tmp_path / 'parts_captions_vlm_pa'}: 3 captions of 1 words" in output.out
    assert "--captions" in output.out
    assert "2 captions are empty: disc/train/good/001.png, disc/train/good/002.png" in output.err
    assert "50 there, 1024 now" in failure(capsys, *words)
    assert "--batch-size 0: must be at least 1" in failure(capsys, *words, "--batch-size", 0)


def test_the_splits_of_coco_ad_are_described_at_once(parts, tmp_path, monkeypatch, capsys):
    """Each image once, whichever split is named, by COCO's own prompt; those of a split that comes later are added."""
    discs = parts.train.select(i for i, record in enumerate(parts.train.records) if record.category == "disc")
    numbered = (replace(record, identity=f"train2017/{number:012}.jpg") for number, record in enumerate(discs.records))
    discs = replace(discs, records=tuple(numbered))
    splits = {
        "coco_ad/all": discs.select(range(2, 4)),
        "coco_ad/all-split_1": discs.select(range(3, 5)),
        "coco_ad/all-split_2": discs.select(range(4)),
    }

    def load(command):
        return SimpleNamespace(train=splits[command.data], problems=())

    asked, described = [], []

    def made_up(model, prompt, *, max_new_tokens):
        asked.append(prompt)

        def describe(images):
            described.append(len(images))
            return [f"mean {image.mean()}" for image in images]

        return describe

    prepared = [*splits][:2]
    monkeypatch.setattr("jaxad.models.captioner.hugging_face.HuggingFaceCaptioner", made_up)
    monkeypatch.setattr("jaxad.data.prepared.prepared_configs", lambda name, _: tuple(prepared))
    monkeypatch.setattr("jaxad.cli.caption.Caption.load", load)
    for split in ("coco_ad", "coco_ad/all-split_1"):
        jaxad("caption", "--data", split, "--model", "org/VLM", "--out", tmp_path)
    assert asked == [captioning.PROMPTS["coco"]]
    assert capsys.readouterr().out.count("3 captions") == 2
    prepared.append("coco_ad/all-split_2")
    jaxad("caption", "--data", "coco_ad", "--model", "org/VLM", "--out", tmp_path)
    output = capsys.readouterr()
    assert "3 of 5 train images have a caption already" in output.err
    assert "5 captions" in output.out
    assert described == [3, 2]
    (folder,) = tmp_path.iterdir()
    assert folder.name == "coco_ad_captions_vlm_coco"
    for source in splits.values():
        texts = Captions.load(folder).attach([record.identity for record in source.records]).texts
        assert texts == tuple(f"mean {source[index].image.mean()}" for index in range(len(source)))
