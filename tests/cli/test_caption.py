"""`jaxad caption` from its command line; the tests of what it calls do the work itself."""

import pytest

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
