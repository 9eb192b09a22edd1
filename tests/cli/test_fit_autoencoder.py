"""`jaxad fit autoencoder` from its command line; the tests of what it calls do the work itself."""

import pytest

from jaxad import data as datasets
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.testing import make_parts
from jaxad.training.autoencoder import trainer as autoencoder_training
from jaxad.training.autoencoder.trainer import AutoencoderRun
from tests.cli.shell import failure, jaxad


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return f"folder:{make_parts(tmp_path_factory.mktemp('shop') / 'parts', ('disc',), train=3, test=1)}"


def test_fit_autoencoder(data, tmp_path, monkeypatch, capsys):
    calls = []

    def instead(source, config, train, *, workdir, **options):
        calls.append((source, config, train, options["provenance"]))
        autoencoder = abstract_autoencoder(AutoencoderConfig(block_out_channels=(32,), layers_per_block=1))
        return AutoencoderRun(autoencoder, workdir / "autoencoder", (50.0, 5.0), 1.0, None)

    monkeypatch.setattr(autoencoder_training, "fit_autoencoder", instead)
    words = ("fit", "autoencoder", "--data", data, "--categories", "disc", "--workdir", tmp_path / "run")
    jaxad(*words, "--preset", "small", "--image-size", 64, "--train.batch-size", 2)
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
    complaint = failure(capsys, *words, "--model.kl-weight", -1, "--train.epochs", 0, "--workers", 0)
    assert all(name in complaint for name in ("--model.kl-weight -1", "--train.epochs 0", "--workers 0"))
    assert "--holdout 1.0: must be at least 0 and below 1" in failure(capsys, *words, "--holdout", 1)
    assert len(calls) == 1
    jaxad(*words, "--holdout", 0)
    assert (len(calls[1][0]), calls[1][3]["holdout"]) == (3, 0.0)
    assert "--holdout 0.0 " in capsys.readouterr().err.partition("next: jaxad fit vlmdiff")[2]
