"""`jaxad caption` and `jaxad fit autoencoder` from their command lines; their modules' tests do the work itself."""

import sys

import pytest

from jaxad import cli
from jaxad import data as datasets
from jaxad.detectors.vlmdiff import captioning
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.training.autoencoder import trainer as autoencoder_training
from jaxad.training.autoencoder.trainer import AutoencoderRun
from tests.parts import make_parts


def jaxad(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["jaxad", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


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
    assert jaxad(monkeypatch, *words, "--max-new-tokens", 50) == 0
    assert asked == {"model": "org/VLM", "prompt": captioning.PROMPTS["pa"], "max_new_tokens": 50}
    output = capsys.readouterr()
    assert f"{tmp_path / 'parts_captions_vlm_pa'}: 3 captions of 1 words" in output.out
    assert "--captions" in output.out
    assert "2 captions are empty: disc/train/good/001.png, disc/train/good/002.png" in output.err
    assert jaxad(monkeypatch, *words) == 1
    assert "max_new_tokens: 50 there, 1024 now" in capsys.readouterr().err
    assert jaxad(monkeypatch, *words, "--batch-size", 0) == 1
    assert "--batch-size 0: must be at least 1" in capsys.readouterr().err


def test_fit_autoencoder(data, tmp_path, monkeypatch, capsys):
    calls = []

    def instead(source, config, train, *, workdir, **options):
        calls.append((source, config, train, options["provenance"]))
        autoencoder = abstract_autoencoder(AutoencoderConfig(block_out_channels=(32,), layers_per_block=1))
        return AutoencoderRun(autoencoder, workdir / "autoencoder", (50.0, 5.0), 1.0, None)

    monkeypatch.setattr(autoencoder_training, "fit_autoencoder", instead)
    words = ("fit", "autoencoder", "--data", data, "--categories", "disc", "--workdir", tmp_path / "run")
    assert jaxad(monkeypatch, *words, "--preset", "small", "--image-size", 64, "--train.batch-size", 2) == 0
    ((source, config, train, provenance),) = calls
    assert (config.image_size, config.perceptual_weight, train.images) == (64, 0.0, 2)
    # Not on what the second stage, by default, keeps out for its threshold.
    assert source.records == datasets.load(data).train.records
    assert (len(source), provenance["holdout"]) == (2, 0.1)
    said = capsys.readouterr().err
    assert "--holdout" not in said
    assert "50.00 before, 5.00 after" in said
    follow = f"--preset small --image-size 64 --model.autoencoder {tmp_path / 'run' / 'autoencoder'}"
    assert follow in said.replace("\n", " ")
    assert "--categories disc" in said
    assert "scaling factor of the latents: 0.18215" in said
    assert jaxad(monkeypatch, *words, "--model.kl-weight", -1, "--train.epochs", 0, "--workers", 0) == 1
    complaint = capsys.readouterr().err
    assert all(name in complaint for name in ("kl_weight = -1", "epochs = 0", "--workers 0"))
    assert jaxad(monkeypatch, *words, "--holdout", 1) == 1
    assert "--holdout 1.0: must be at least 0 and below 1" in capsys.readouterr().err
    assert len(calls) == 1
    assert jaxad(monkeypatch, *words, "--holdout", 0) == 0
    assert (len(calls[1][0]), calls[1][3]["holdout"]) == (3, 0.0)
    assert "--holdout 0.0 " in capsys.readouterr().err.partition("next: jaxad fit vlmdiff")[2]
