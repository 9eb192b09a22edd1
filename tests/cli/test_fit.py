"""`jaxad fit`: where its flags come from, the files it leaves, the next command, what it refuses before work."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jaxad import cli
from jaxad.cli.evaluate import Evaluate
from jaxad.cli.fit import Fit, next_command
from jaxad.cli.predict import Predict
from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig, VLMDiffConfig
from jaxad.data.fit_options import CaptionOptions, ReferenceOptions
from jaxad.detector import detectors
from jaxad.types import Record
from tests.cli.shell import BAD, BANK, failure, jaxad, spoil, toy_flags

FIT = ("fit", "dpdiff", "--data", "folder:parts", "--workdir", "runs/parts")


def parsed(*words: str) -> Fit:
    command = cli.parse(list(words))
    assert isinstance(command, Fit)
    return command


def test_defaults_are_those_of_the_paper():
    command = parsed(*FIT)
    assert (command.model, command.train) == (DPDiffConfig(), TrainConfig())
    assert (command.holdout, command.false_alarm, command.preset) == (0.1, 0.01, "paper")
    assert (command.workdir, command.detector, command.protocol) == (Path("runs/parts"), "dpdiff", "exact-256")


@pytest.mark.parametrize("preset", [["--preset", "small"], ["--preset=small"]])
def test_preset_sets_the_defaults(preset):
    command = parsed(*FIT, *preset)
    assert command.preset == "small"
    assert (command.model, command.train) == (DPDiffConfig.preset("small"), TrainConfig.preset("small"))
    bank = parsed("fit", "patch-bank", *FIT[2:], *preset)
    assert (bank.model, bank.train, bank.detector) == (PatchBankConfig.preset("small"), None, "patch-bank")


@pytest.mark.parametrize("last", [True, False])
def test_given_flags_win_over_the_preset_in_any_order(last):
    flags = ["--model.blocks", "2", "3", "--train.steps", "7", "--model.image-size", "448", "--train.clip-norm", "None"]
    command = parsed(*FIT, *(["--preset", "small", *flags] if last else [*flags, "--preset", "small"]))
    assert command.model == DPDiffConfig.preset("small", blocks=(2, 3), image_size=448)
    assert command.train == TrainConfig.preset("small", steps=7, clip_norm=None)


def test_flags_of_data_and_settings():
    model = shlex.split("--model.backbone /weights/dinov2 --train.batch-size 8 --image-size 224")
    data = shlex.split("--holdout 0.2 --false-alarm 0.05 --categories screw nut --on-bad skip")
    fit = parsed(*FIT, *model, *data)
    assert (fit.model.backbone, fit.train.batch_size, fit.settings().image_size) == ("/weights/dinov2", 8, 224)
    assert (fit.holdout, fit.false_alarm, fit.categories, fit.on_bad) == (0.2, 0.05, ("screw", "nut"), "skip")


def test_what_is_to_be_watched_traced_and_begun_from():
    words = ["fit", "dpdiff", "--data", "demo", "--workdir", "x", "--from", "runs/a", "--profile", "3:4"]
    words += ["--train.eval-every", "5", "--train.eval-on", "test", "--train.loggers", "wandb", "tensorboard"]
    fit = cli.parse(words)
    assert isinstance(fit, Fit)
    assert (fit.warm_start, fit.traced()) == (Path("runs/a"), (3, 4))
    assert (fit.train.eval_every, fit.train.eval_on, fit.train.loggers) == (5, "test", ("wandb", "tensorboard"))


def test_what_cannot_be_traced_or_begun_from_is_refused_with_its_flag(tmp_path, capsys):
    words = ("--data", "demo", "--workdir", tmp_path / "run", "--profile")
    assert "--profile 4:3: must be the first step" in failure(capsys, "fit", "dpdiff", *words, "4:3")
    assert "--profile 20: must be" in failure(capsys, "fit", "autoencoder", *words, "20")
    said = failure(capsys, "fit", "padim", *words, "1:2", "--from", "runs/a")
    assert "--from, --profile: padim is not trained" in said
    said = failure(capsys, "fit", "dpdiff", *words, "1:2", "--train.schedule-steps", 0)
    assert "--train.schedule-steps 0" in said


def test_flags_come_from_the_detector(refused):
    vlmdiff = parsed("fit", "vlmdiff", *FIT[2:], "--captions", "texts", "--preset", "diad")
    assert (vlmdiff.options, vlmdiff.protocol) == (CaptionOptions(captions=Path("texts")), "diad")
    assert (vlmdiff.model, vlmdiff.train) == (VLMDiffConfig.preset("diad"), VLMDiffConfig.training("diad"))
    # Steps that are given go before the epochs of the preset.
    shorter = parsed("fit", "vlmdiff", *FIT[2:], "--train.steps", "20").train
    assert (shorter.steps, shorter.epochs) == (20, None)
    by_epochs = parsed("fit", "dpdiff", *FIT[2:], "--train.epochs", "2").train
    assert by_epochs.counted(64).steps == 4
    both = parsed("fit", "dpdiff", *FIT[2:], "--train.epochs", "2", "--train.steps", "5")
    assert any("steps = 5, epochs = 2" in problem for problem in both.problems())
    words = ("--workdir", "run", "--classes", "nut", "screw", "--preset", "winclip")
    fusion = parsed("fit", "clipfusion", *words)
    assert (fusion.options, fusion.protocol) == (ReferenceOptions(classes=("nut", "screw")), "winclip")
    assert (fusion.data, fusion.train, fusion.chosen_categories) == ("", None, ("nut", "screw"))
    assert "--captions" in refused(*FIT, "--captions", "texts")
    assert "--train.steps" in refused("fit", "patch-bank", *FIT[2:], "--train.steps", "5")
    assert "--data" in refused("fit", "vlmdiff", "--workdir", "run")


STRANGER = """
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from jaxad import Detector
from jaxad.config import from_json
from jaxad.data.fit_options import FitOptions
from jaxad.errors import ConfigError

@dataclass(frozen=True)
class GrayConfig:
    \"\"\"Gray.\"\"\"
    bins: int = 16
    \"\"\"Number of bins.\"\"\"
    image_size: int = 32

    @classmethod
    def presets(cls):
        return ("usual", "fine")

    @classmethod
    def preset(cls, name="usual", **changes):
        return cls(**{"bins": 64 if name == "fine" else 16, **changes})

    def check(self):
        if self.bins < 1:
            raise ConfigError(f"GrayConfig cannot be used:\\n  bins = {self.bins}: must be at least 1")

@dataclass(frozen=True, kw_only=True)
class LightOptions(FitOptions):
    lamp: str = "day"
    \"\"\"What the parts were lit by.\"\"\"

class Gray(Detector):
    \"\"\"Compares gray values.

    More of it.
    \"\"\"
    name = "gray"
    title = "Gray"
    config_class = GrayConfig
    protocol = "ader"
    fit_options = LightOptions
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package of somebody else with a detector, as pip leaves it."""
    (tmp_path / "grayness.py").write_text(STRANGER)
    metadata = tmp_path / "grayness-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: grayness\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[jaxad.detectors]\ngray = grayness:Gray\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    # All others stay: their modules would not be imported again.
    detectors._entries.pop("gray", None)
    sys.modules.pop("grayness", None)


def test_a_detector_of_another_package_has_its_own_flags(installed, shown, refused, tmp_path, capsys):
    assert "gray         Compares gray values." in shown("fit", "--help")
    words = ("fit", "gray", "--data", "demo", "--workdir", str(tmp_path / "run"))
    command = parsed(*words, "--preset", "fine", "--lamp", "flash", "--image-size", "48")
    assert (command.detector, command.preset, command.protocol, command.train) == ("gray", "fine", "ader", None)
    assert (command.model.bins, command.settings().image_size, command.options.lamp) == (64, 48, "flash")
    assert "What the parts were lit by." in shown(*words[:2], "--help")
    assert "--model.bins" in refused(*words, "--model.bin", "4")
    assert "--model.bins 0: must be at least 1" in failure(capsys, *words, "--model.bins", "0")


def test_fit_leaves_config_metrics_and_checkpoints(work):
    config = json.loads((work / "my run/config.json").read_text())
    assert config["system"] == "dpdiff"
    assert (config["config"]["blocks"], config["config"]["image_size"]) == (None, 56)
    assert (config["train"]["steps"], config["data"]["preset"], config["data"]["holdout"]) == (12, "paper", 0.1)
    rows = (work / "my run/metrics.csv").read_text().splitlines()
    assert {"step", "seconds", "learning_rate", "loss", "images_per_second"} <= set(rows[0].split(","))
    assert [row.split(",")[0] for row in rows[1:]] == [str(step) for step in range(1, 13)]
    assert (work / "my run/checkpoints/12").is_dir()
    assert (work / "bank/checkpoints/0").is_dir()


def test_fit_names_the_next_command_ready_to_be_copied(work, capsys):
    data = f"folder:{work}/my parts"
    jaxad("fit", "dpdiff", "--data", data, "--workdir", work / "my run", *toy_flags())
    said = capsys.readouterr().err
    assert "complete; nothing to train" in said
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    command = cli.parse(shlex.split(line.removeprefix("next: "))[1:])
    assert command == Evaluate(checkpoint=work / "my run", data=data, out=Path(f"{work}/my run-report"))


@pytest.mark.parametrize(("detector", "flag"), [("dpdiff", "--categories"), ("clipfusion", "--classes")])
def test_the_next_command_reads_the_same_images(detector, flag):
    source = shlex.split(f"--data mvtec_ad --data-dir 'my data' --on-bad skip {flag} 'metal nut' screw")
    command: Any = cli.parse(["fit", detector, "--workdir", "run", "--protocol", "diad", *source])
    record = Record(Path("a.png"), "screw")
    two, one = ("metal nut", "screw"), ("screw",)
    for label, needs_category, known in ((0, False, two), (None, True, two), (None, True, one), (None, False, two)):
        dataset: Any = SimpleNamespace(test=SimpleNamespace(records=[replace(record, label=label)]))
        model = SimpleNamespace(inputs=SimpleNamespace(needs_category=needs_category), categories=known)
        result: Any = SimpleNamespace(model=model)
        parsed: Any = cli.parse(shlex.split(next_command(command, dataset, result))[1:])
        if label is None:
            # Nobody has to name the only one.
            assert parsed.category == ("NAME" if needs_category and known == two else "")
            assert parsed.checkpoint == Path("run")
        else:
            assert (parsed.data, parsed.data_dir, parsed.on_bad) == ("mvtec_ad", Path("my data"), "skip")
            assert (parsed.categories, parsed.protocol) == (("metal nut", "screw"), "diad")


def test_the_next_command_has_the_captions_that_a_detector_takes(tmp_path):
    words = ["--data", "mvtec_ad", "--workdir", "run", "--captions", str(tmp_path), "--model.captions", "always"]
    command: Any = cli.parse(["fit", "vlmdiff", *words])
    dataset: Any = SimpleNamespace(test=SimpleNamespace(records=[Record(Path("a.png"), "screw", label=0)]))
    result: Any = SimpleNamespace(model=SimpleNamespace(config=command.model))
    evaluate: Any = cli.parse(shlex.split(next_command(command, dataset, result))[1:])
    assert (evaluate.captions, evaluate.protocol) == (tmp_path, "diad")


def test_fit_on_data_without_test_images_names_predict_next(work, tmp_path, capsys):
    shutil.copytree(work / "my parts/tile/train", tmp_path / "tile/train")
    jaxad("fit", "patch-bank", "--data", f"folder:{tmp_path}", "--workdir", tmp_path / "run", *BANK, "--holdout", 0)
    said = capsys.readouterr().err
    line = next(line for line in said.splitlines() if line.startswith("next: "))
    command = cli.parse(shlex.split(line.removeprefix("next: "))[1:])
    assert isinstance(command, Predict)
    assert command.checkpoint == tmp_path / "run"


def test_fit_refuses_impossible_settings_all_at_once_and_writes_nothing(work, tmp_path, capsys):
    flags = shlex.split("--holdout 1 --false-alarm 0 --workers 0 --model.draws 0 --model.timesteps 9 --train.steps 0")
    message = failure(
        capsys, "fit", "dpdiff", "--data", f"folder:{work}/my parts", "--workdir", tmp_path / "run", *BANK, *flags
    )
    for part in ("--holdout 1.0:", "--false-alarm 0.0:", "--workers 0:", "--model.draws 0", "--model.timesteps 9"):
        assert part in message
    assert "--train.steps 0" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("data", "flags", "said"),
    [
        ("{work}/my parts", [], "write folder:"),
        ("folder:{work}/missing", [], "no such folder"),
        ("folder:{work}/my parts", ["--categories", "screw"], "no category screw; there are disc, tile"),
        ("folder:{work}/my parts", ["--model.blocks", "7"], "blocks 0 to 1"),
        ("folder:{work}/my parts", ["--image-size", "50"], "multiple"),
        ("folder:{work}/my parts", ["--model.backbone", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_fit_refuses_data_and_models_that_are_not_there(work, tmp_path, capsys, data, flags, said):
    data = data.format(work=work)
    command = ("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK, *flags)
    assert said in failure(capsys, *command)
    assert not (tmp_path / "run").exists()


def test_fit_does_not_touch_a_workdir_of_something_else(work, tmp_path, capsys):
    data = f"folder:{work}/my parts"
    other = failure(capsys, "fit", "dpdiff", "--data", data, "--workdir", work / "my run", *toy_flags(steps=9))
    assert "train.steps: 12 are done there, 9 now" in other
    (tmp_path / "notes.txt").write_text("mine")
    assert "not empty" in failure(capsys, "fit", "patch-bank", "--data", data, "--workdir", tmp_path, *BANK)
    file = failure(capsys, "fit", "patch-bank", "--data", data, "--workdir", tmp_path / "notes.txt", *BANK)
    assert "is a file" in file
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_bad_inputs_can_be_skipped_and_are_recorded(work, tmp_path):
    data = spoil(Path(shutil.copytree(work / "my parts", tmp_path / "parts")))
    source = ("--data", f"folder:{data}", "--on-bad", "skip")
    jaxad("fit", "patch-bank", *source, "--workdir", tmp_path / "run", *BANK)
    jaxad("evaluate", "--checkpoint", tmp_path / "run", *source, "--out", tmp_path / "report")
    report = json.loads((tmp_path / "report/report.json").read_text())
    bad = {str(data / file) for file in BAD}
    assert set(report["config"]["data"]["skipped"]) == bad
    assert bad <= {entry["file"] for entry in report["data"]["bad_files"]}
    assert report["data"]["counts"]["tile"]["test_anomalous"] == 3


def test_every_bad_input_stops_a_fit_in_one_message(work, tmp_path, capsys):
    data = spoil(Path(shutil.copytree(work / "my parts", tmp_path / "parts")))
    fit = ("fit", "patch-bank", "--data", f"folder:{data}", "--workdir", tmp_path / "run", *BANK)
    message = failure(capsys, *fit)
    assert f"{len(BAD)} problems" in message
    assert "--on-bad skip" in message
    for file, kind in BAD.items():
        assert f"{data / file}: {kind}" in message
    assert not (tmp_path / "run").exists()
    # What `check` says is what `fit` says.
    message = failure(capsys, "check", "--data", f"folder:{data}", "--out", tmp_path / "json/problems.json")
    assert f"{len(BAD)} problems would stop a run" in message
    listed = json.loads((tmp_path / "json/problems.json").read_text())["problems"]
    fatal = {problem["file"]: problem["kind"] for problem in listed if problem["fatal"]}
    assert fatal == {str(data / file): kind for file, kind in BAD.items()}
