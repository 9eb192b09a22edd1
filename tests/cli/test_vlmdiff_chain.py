"""The stages of VLMDiff as its guide shows them, from autoencoder to report, on made-up parts and tiny networks."""

import json
import re
import shlex
from pathlib import Path

import pytest

from jaxad import cli, data, load, restore
from jaxad.errors import ConfigError
from jaxad.testing import make_parts
from jaxad.training.run_folder import content_hash
from tests.detectors.vlmdiff.made_checkpoints import networks_of, state_dict, write
from tests.models.clip.vocabulary import write_tokenizer

pytestmark = pytest.mark.slow

GUIDE = Path(__file__).parents[2] / "docs/guides/vlmdiff.md"

REDUCED = {
    "fit autoencoder": "--preset small --model.source random:8 --image-size 32 --train.steps 4 --train.batch-size 2",
    "caption": "--batch-size 3",
    "convert": "",
    "fit vlmdiff": "--preset small --model.tokenizer tokenizer --model.backbone random:32x2x8 --image-size 32 "
    "--model.sampling-steps 2 --train.steps 2 --train.batch-size 2 --false-alarm 0.2",
    "evaluate": "--batch-size 4",
}
"""What makes each command small; everything else is the guide's."""


def section():
    """The guide's five commands, by what they do."""
    part = GUIDE.read_text().partition("## The five commands")[2]
    block = re.findall(r"```bash\n(.*?)```", part, re.DOTALL)[0]
    lines = [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
    return {" ".join(words[:2] if words[0] == "fit" else words[:1]): words for words in lines}


def run(words):
    cli.run(cli.parse(words))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Everything that the commands leave."""
    folder = tmp_path_factory.mktemp("chain")
    make_parts(folder / "parts", ("disc",), train=8, test=2)
    write_tokenizer(folder / "tokenizer")
    built = state_dict(networks_of())
    start = {name: tensor for name, tensor in built.items() if not name.startswith("control_model.")}
    write(folder / "v1-5-pruned.ckpt", start)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(
            "jaxad.models.captioner.hugging_face.HuggingFaceCaptioner",
            lambda *_, **__: lambda images: ["a disc"] * len(images),
        )
        for name, words in section().items():
            run([*words, *REDUCED[name].split()])
        yield folder


def test_the_guide_shows_every_stage():
    assert list(section()) == list(REDUCED)


def test_autoencoder_carries_the_scale_of_its_latents(outputs):
    measured = json.loads((outputs / "runs/kl-f8/autoencoder/config.json").read_text())["scaling_factor"]
    assert measured != 0.18215
    meta = json.loads((outputs / "runs/vlmdiff/config.json").read_text())
    assert meta["config"]["autoencoder"] == "runs/kl-f8/autoencoder"
    assert restore(outputs / "runs/vlmdiff").detector.autoencoder.config.scaling_factor == measured


def test_both_stages_train_on_the_same_images(outputs):
    first, second = (
        json.loads((outputs / f"runs/{run}/config.json").read_text())["data"] for run in ("kl-f8", "vlmdiff")
    )
    parts = data.load(f"folder:{outputs / 'parts'}")
    assert first["images"] == second["images"] == len(parts.train) == 4
    assert first["sha256"] == {"images": content_hash(parts.train)}
    assert second["sha256"]["holdout"] == content_hash(parts.holdout)


def test_report_is_in_the_protocol_of_the_threshold(outputs):
    report = json.loads((outputs / "runs/vlmdiff-report/report.json").read_text())
    assert report["protocol"] == "diad"
    assert report["config"]["data"]["captions"]["missing"] == 0
    assert report["config"]["threshold"]["limits"]["disc"]["normals"] == 4
    assert 0 <= report["mean"]["pixel_auroc"] <= 1


def test_captions_at_test_time(outputs, monkeypatch):
    """As for COCO-AD: captions of test images, whose absence is counted."""
    words = section()
    monkeypatch.chdir(outputs)
    run([*words["caption"], "--split", "test"])
    captions = words["fit vlmdiff"][words["fit vlmdiff"].index("--captions") + 1]
    evaluate = [*words["evaluate"], "--out", "always", "--override", "captions=always"]
    run([*evaluate, "--captions", captions])
    recorded = json.loads(Path("always/report.json").read_text())["config"]["test_captions"]
    assert recorded == {"source": captions, "kind": "internvl2-8b, pd", "images": 4, "missing": 0}


def test_a_threshold_holds_for_captions_as_those_of_its_hold_out(outputs, monkeypatch):
    """A detector that takes captions at test time, its photos with captions and without."""
    words = section()
    monkeypatch.chdir(outputs)
    fit = [*words["fit vlmdiff"], *REDUCED["fit vlmdiff"].split(), "--model.captions", "always"]
    fit[fit.index("--workdir") + 1] = "runs/always"
    run(fit)
    run([*words["caption"], "--split", "test"])
    captions = ["--captions", fit[fit.index("--captions") + 1]]
    photos = ["predict", "parts/disc/test", "--checkpoint", "runs/always", "--out"]
    run([*photos, "described", *captions])
    with pytest.raises(ConfigError, match="captions of internvl2-8b, pd, and here are none"):
        run([*photos, "bare"])
    run([*photos, "bare", "--threshold", "0.5"])
    with_captions, without = (
        [json.loads(line) for line in (outputs / folder / "predictions.jsonl").read_text().splitlines()]
        for folder in ("described", "bare")
    )
    assert all(line["threshold"] is not None for line in with_captions)
    assert any(one["score"] != other["score"] for one, other in zip(with_captions, without, strict=True))
    said = []
    inspector = load("runs/always", told=said.append)
    for line, given in ((with_captions[0], "a disc"), (without[0], None), (without[0], "")):
        assert inspector(line["file"], captions=given).score == pytest.approx(line["score"], rel=1e-4)
    (text,) = said
    assert "1 of 1 images have no caption" in text
    assert "captions of internvl2-8b, pd, and here are none" in text
    with pytest.raises(ConfigError, match="cannot be chosen anew"):
        run(["threshold", "--checkpoint", "runs/always", "--data", "folder:parts"])
    evaluate = ["evaluate", "--checkpoint", "runs/always", "--data", "folder:parts", "--protocol", "diad", "--out"]
    found = []
    for given in (captions, []):
        run([*evaluate, "report", *given])
        found.append(json.loads(Path("report/report.json").read_text())["config"]["threshold"] is not None)
    assert found == [True, False]


def test_another_network_compares(outputs, monkeypatch, capsys):
    """As in Table 13, one whose patch does not divide the image; the threshold, measured with another, is left out."""
    monkeypatch.chdir(outputs)
    run([*section()["evaluate"], "--out", "other", "--backbone", "random:16x1x12"])
    config = json.loads(Path("other/report.json").read_text())["config"]
    assert config["model"]["backbone"] == config["backbone"]["id"] == "random:16x1x12"
    assert config["threshold"] is None
    assert "random:16x1x12 compares in place of random:32x2x8" in capsys.readouterr().err.replace("\n", " ")
