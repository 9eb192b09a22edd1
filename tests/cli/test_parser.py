"""Arguments to commands: flags, presets, help, and what is printed when something goes wrong."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxad import __version__, cli
from jaxad.cli import commands
from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig
from jaxad.errors import ConfigError

FIT = ["fit", "dpdiff", "--data", "folder:parts", "--workdir", "runs/parts"]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said about arguments that do not fit."""
    with pytest.raises(SystemExit) as stop:
        cli.parse(list(arguments))
    assert stop.value.code == 2
    return " ".join(capsys.readouterr().err.replace("│", " ").split())


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.parse(list(arguments))
    assert stop.value.code == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_defaults_are_those_of_the_paper():
    command = cli.parse(FIT)
    assert isinstance(command, cli.FitDPDiff)
    assert (command.model, command.train) == (DPDiffConfig(), TrainConfig())
    assert (command.holdout, command.false_alarm, command.preset) == (0.1, 0.01, "paper")
    assert (command.workdir, command.system) == (Path("runs/parts"), "dpdiff")


@pytest.mark.parametrize("preset", [["--preset", "small"], ["--preset=small"]])
def test_preset_sets_the_defaults(preset):
    command = cli.parse([*FIT, *preset])
    assert isinstance(command, cli.FitDPDiff)
    assert command.preset == "small"
    assert (command.model, command.train) == (DPDiffConfig.preset("small"), TrainConfig.preset("small"))
    bank = cli.parse(["fit", "patch-bank", *FIT[2:], *preset])
    assert isinstance(bank, cli.FitPatchBank)
    assert (bank.model, bank.train, bank.system) == (PatchBankConfig.preset("small"), None, "patch-bank")


@pytest.mark.parametrize("last", [True, False])
def test_given_flags_win_over_the_preset_in_any_order(last):
    flags = ["--model.blocks", "2", "3", "--train.steps", "7", "--model.image-size", "448", "--train.clip-norm", "None"]
    command = cli.parse([*FIT, *(["--preset", "small", *flags] if last else [*flags, "--preset", "small"])])
    assert command.model == DPDiffConfig.preset("small", blocks=(2, 3), image_size=448)
    assert command.train == TrainConfig.preset("small", steps=7, clip_norm=None)


def test_flags_of_design_section_3():
    model = shlex.split("--model.backbone /weights/dinov2 --train.batch-size 8 --image-size 224")
    data = shlex.split("--holdout 0.2 --false-alarm 0.05 --categories screw nut --on-bad skip")
    fit = cli.parse([*FIT, *model, *data])
    assert (fit.model.backbone, fit.train.batch_size, fit.image_size) == ("/weights/dinov2", 8, 224)
    assert (fit.holdout, fit.false_alarm, fit.categories, fit.on_bad) == (0.2, 0.05, ("screw", "nut"), "skip")
    evaluate = cli.parse(["evaluate", "--checkpoint", "run", "--data", "demo", "--out", "report"])
    assert evaluate == cli.Evaluate(checkpoint=Path("run"), data="demo", out=Path("report"), protocol="exact-256")
    assert cli.parse(["check", "--data", "demo"]) == cli.Check(data="demo")
    assert cli.parse(["demo", "--out", "demo"]) == cli.Demo(Path("demo"))
    assert cli.parse(["bench", "metrics"]) == cli.Bench("metrics")


@pytest.mark.parametrize(
    "arguments",
    [
        "a.png folder --checkpoint run --out out --save overlay map mask --category nut",
        "--checkpoint run --out out --save overlay map mask --category nut a.png folder",
        "--checkpoint run --category nut --out out --save overlay map mask a.png folder",
        "a.png --checkpoint run folder --category=nut --out out --save overlay map mask",
    ],
)
def test_predict_takes_images_before_between_and_after_flags(arguments):
    command = cli.parse(["predict", *arguments.split()])
    images, save = (Path("a.png"), Path("folder")), ("overlay", "map", "mask")
    assert command == cli.Predict(images, Path("run"), Path("out"), category="nut", save=save)


def test_predict_without_images(capsys):
    assert "no images given" in refused(capsys, "predict", "--checkpoint", "run", "--out", "out")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "demo"),
        (["fit"], "patch-bank"),
        (["fit", "dpdif"], "dpdiff"),
        (["fit", "dpdiff", "--data", "x"], "--workdir"),
        ([*FIT, "--train.stpes", "5"], "--train.steps"),
        ([*FIT, "--train.steps", "many"], "--train.steps"),
        ([*FIT, "--preset", "tiny"], "--preset"),
        ([*FIT, "--preset"], "--preset"),
        (["evaluate", "--checkpoint", "run", "--data", "x", "--out", "o", "--protocol", "exact"], "--protocol"),
        (["bench", "speed"], "metrics"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_fits(capsys, arguments, names):
    assert names in refused(capsys, *arguments)


def test_help_lists_commands_and_systems(capsys):
    overview = shown(capsys, "--help")
    assert all(name in overview for name in ("demo", "fit", "evaluate", "predict", "check", "bench"))
    systems = shown(capsys, "fit", "--help")
    assert "dpdiff" in systems
    assert "patch-bank" in systems


def test_help_of_a_preset_shows_its_values(capsys):
    small, paper = shown(capsys, "fit", "dpdiff", "--preset", "small", "--help"), shown(capsys, "fit", "dpdiff", "-h")
    assert "(default: embedded)" in small
    assert "(default: middle)" in small
    assert "(default: facebook/dinov2-with-registers-base)" in paper


def test_version(capsys):
    assert shown(capsys, "--version") == f"jaxad {__version__}"


def test_help_is_quick_and_leaves_jax_out():
    check = "import sys; from jaxad import cli\ntry: cli.parse(['--help'])\nexcept SystemExit: pass\n"
    check += "print(*{'jax', 'numpy', 'cv2'} & set(sys.modules), file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
    # Processor time, because other processes may hold this one up.
    before = os.times()
    subprocess.run([sys.executable, "-m", "jaxad", "--help"], capture_output=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.5


def ends_with(monkeypatch, error: BaseException | None, arguments: list[str]) -> int:
    """Exit status of a command line whose command raises `error`."""

    def run(command):
        if error is not None:
            raise error

    monkeypatch.setattr(commands, "run", run)
    monkeypatch.setattr(sys, "argv", ["jaxad", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def test_success_is_0(monkeypatch):
    assert ends_with(monkeypatch, None, ["check", "--data", "demo"]) == 0


def test_errors_of_users_are_1_and_one_message(monkeypatch, capsys):
    assert ends_with(monkeypatch, ConfigError("--holdout 2: too much"), FIT) == 1
    assert capsys.readouterr().err == "jaxad: --holdout 2: too much\n"
    assert ends_with(monkeypatch, PermissionError(13, "Permission denied", "/root/x"), FIT) == 1
    assert capsys.readouterr().err == "jaxad: [Errno 13] Permission denied: '/root/x'\n"


def test_errors_of_jaxad_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(commands, "run", lambda command: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["jaxad", *FIT])
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_interruption_is_130_and_says_how_to_go_on_where_that_is_possible(monkeypatch, capsys, tmp_path):
    run, demo = tmp_path / "run", tmp_path / "demo"
    fit = [*FIT[:-1], str(run)]
    stop = KeyboardInterrupt()
    assert ends_with(monkeypatch, stop, fit) == 130
    assert capsys.readouterr().err == "\njaxad: stopped\n"
    for folder in (run, demo / "run"):
        (folder / "checkpoints" / "250").mkdir(parents=True)
    for resumable in (fit, ["fit", "patch-bank", *fit[2:]], ["demo", "--out", str(demo)]):
        assert ends_with(monkeypatch, stop, resumable) == 130
        assert "run the same command again" in capsys.readouterr().err
    assert ends_with(monkeypatch, stop, ["caption", "--data", "demo", "--model", "org/VLM", "--out", "texts"]) == 130
    assert "finished captions are kept" in capsys.readouterr().err
    assert ends_with(monkeypatch, stop, ["check", "--data", "demo"]) == 130
    assert capsys.readouterr().err == "\njaxad: stopped\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_reader_that_goes_away_is_not_an_error_message(arguments):
    command = [sys.executable, "-m", "jaxad", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.wait()


def test_ctrl_c_shows_no_traceback(tmp_path):
    command = [sys.executable, "-c", _SLEEPER]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (130, "\njaxad: stopped\n")
    assert time.monotonic() - began < 10


_SLEEPER = """
import signal, sys, time
from jaxad import cli
from jaxad.cli import commands
# What starts the tests may have told its children to ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)
def run(command):
    print("ready", flush=True)
    time.sleep(60)
commands.run = run
sys.argv = ["jaxad", "check", "--data", "demo"]
cli.main()
"""
