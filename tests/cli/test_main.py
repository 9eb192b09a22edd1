"""Words to commands, and what is printed when something goes wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxad import __version__, cli
from jaxad.cli.check import Check
from jaxad.cli.demo import Demo
from jaxad.cli.evaluate import Evaluate
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.io.signals import Stopped

FIT = ["fit", "dpdiff", "--data", "folder:parts", "--workdir", "runs/parts"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], "demo"),
        (["evalute"], "did you mean evaluate?"),
        (["--verison"], "unknown"),
        (["fit"], "patch-bank"),
        (["fit", "dpdif"], "did you mean dpdiff?"),
        (["fit", "dpdiff", "--data", "x"], "--workdir"),
        ([*FIT, "--train.stpes", "5"], "--train.steps"),
        ([*FIT, "--train.steps", "many"], "--train.steps"),
        ([*FIT, "--preset", "tiny"], "--preset"),
        ([*FIT, "--preset"], "--preset"),
        (["evaluate", "--checkpoint", "run", "--data", "x", "--out", "o", "--protocol", "exact"], "--protocol"),
        (["bench", "speed"], "metrics"),
        (["bench", "vlmdif"], "did you mean vlmdiff?"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_what_fits(refused, arguments, names):
    assert names in refused(*arguments)


def test_words_become_commands():
    evaluate = cli.parse(["evaluate", "--checkpoint", "run", "--data", "demo", "--out", "report"])
    assert evaluate == Evaluate(checkpoint=Path("run"), data="demo", out=Path("report"), protocol="exact-256")
    assert cli.parse(["check", "--data", "demo"]) == Check(data="demo")
    assert cli.parse(["demo", "--out", "demo"]) == Demo(Path("demo"))


def test_version(shown):
    assert shown("--version") == f"jaxad {__version__}\n"


def ends_with(monkeypatch, error: BaseException | None, arguments: list[str]) -> int:
    """Exit status of a command line whose command raises `error`."""

    def run(command):
        if error is not None:
            raise error

    monkeypatch.setattr(cli, "run", run)
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


def test_parameters_in_messages_become_flags(monkeypatch, capsys):
    def run(self):
        raise DataError("batch_size = 3: too many for what workers = 2 can do", [Problem("kind", "a.png", "detail")])

    monkeypatch.setattr(Evaluate, "run", run)
    monkeypatch.setattr(sys, "argv", ["jaxad", "evaluate", "--checkpoint", "run", "--data", "x", "--out", "o"])
    with pytest.raises(SystemExit):
        cli.main()
    said = "jaxad: --batch-size 3: too many for what --workers 2 can do\n  a.png: kind: detail\n"
    assert capsys.readouterr().err == said


def test_errors_of_jaxad_keep_their_traceback(monkeypatch):
    monkeypatch.setattr(cli, "run", lambda command: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["jaxad", *FIT])
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    ("number", "status", "name"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "SIGHUP")],
)
def test_a_signal_has_its_status_and_the_message_says_what_is_kept(monkeypatch, capsys, tmp_path, number, status, name):
    run, demo = tmp_path / "run", tmp_path / "demo"
    fit = [*FIT[:-1], str(run)]
    stop = Stopped(number)
    assert ends_with(monkeypatch, stop, fit) == status
    assert capsys.readouterr().err == f"\njaxad: stopped by {name}\n"
    for folder in (run, demo / "run"):
        (folder / "checkpoints" / "250").mkdir(parents=True)
        (folder / "checkpoints" / "1000").mkdir(parents=True)
    for place, resumable in ((run, fit), (run, ["fit", "patch-bank", *fit[2:]]), (demo, ["demo", "--out", str(demo)])):
        assert ends_with(monkeypatch, stop, resumable) == status
        said = capsys.readouterr().err
        assert "step 1000 is saved" in said
        assert str(place) in said
        assert "same command again" in said
    caption = ["caption", "--data", "demo", "--model", "org/VLM", "--out", "texts"]
    assert ends_with(monkeypatch, stop, caption) == status
    assert "finished captions are kept" in capsys.readouterr().err
    assert ends_with(monkeypatch, stop, ["check", "--data", "demo"]) == status
    assert capsys.readouterr().err == f"\njaxad: stopped by {name}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_a_reader_that_goes_away_is_not_an_error_message(arguments):
    command = [sys.executable, "-m", "jaxad", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_shows_no_traceback(number):
    process = subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    said = f"\njaxad: stopped by {'Ctrl-C' if number == signal.SIGINT else number.name}\n"
    assert (process.returncode, errors) == (128 + number, said)


_SLEEPER = """
import signal, sys, time
from jaxad import cli
# What starts the tests may have told its children to ignore signals.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
def run(command):
    print("ready", flush=True)
    time.sleep(60)
cli.run = run
sys.argv = ["jaxad", "check", "--data", "demo"]
cli.main()
"""


@pytest.mark.parametrize(
    ("given", "share"),
    [({}, "0.95"), ({"XLA_CLIENT_MEM_FRACTION": "0.5"}, "0.5"), ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, None)],
)
def test_a_command_has_most_of_a_gpu_unless_the_user_says_how_much(monkeypatch, given, share):
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cli, "_status", lambda words: 0)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    # What `main` sets is forgotten after the test.
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SystemExit):
        cli.main()
    assert os.environ.get("XLA_CLIENT_MEM_FRACTION") == share
