"""What a command line says of what goes wrong on its way, in processes of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxad.io.locks import occupied
from tests.cli.shell import BANK, failure, jaxad, toy_flags

RESULTS = ["index.html", "model.json", "overlay", "predictions.csv", "predictions.jsonl"]


def start(*words: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a command line whose Ctrl-C works."""
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from jaxad.cli import main; main()"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("command", ["fit", "predict", "evaluate"])
def test_a_folder_in_use_is_refused_before_anything_is_read(work, tmp_path, capsys, monkeypatch, command):
    monkeypatch.setattr("jaxad.data.load", lambda *_, **__: pytest.fail("worked"))
    monkeypatch.setattr("jaxad.inference.checkpoint.restore", lambda *_, **__: pytest.fail("worked"))
    monkeypatch.setattr("jaxad.io.locks.try_lock", lambda _: False)
    data, run = ("--data", f"folder:{work / 'my parts'}"), ("--checkpoint", work / "bank")
    words = {
        "fit": ("fit", "patch-bank", *data, "--workdir", tmp_path / "out", *BANK),
        "predict": ("predict", work / "my parts/disc/test", *run, "--out", tmp_path / "out"),
        "evaluate": ("evaluate", *run, *data, "--out", tmp_path / "out"),
    }
    flag = "--workdir" if command == "fit" else "--out"
    message = failure(capsys, *words[command])
    assert message.startswith(f"jaxad: {flag} {tmp_path / 'out'}: another process")
    assert message.count("\n") == 1


def test_a_command_leaves_no_lock(work, tmp_path):
    out = tmp_path / "out"
    jaxad(
        "predict", work / "my parts/disc/test/good", "--checkpoint", work / "bank", "--out", out, "--category", "disc"
    )
    with occupied(out, "out"):
        pass
    assert sorted(path.name for path in out.iterdir()) == RESULTS


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_the_step_at_hand(work, tmp_path, number, status):
    run = tmp_path / "run"
    flags = toy_flags(steps=3000, checkpoint_every=1000)
    process = start("fit", "dpdiff", "--data", f"folder:{work / 'my parts'}", "--workdir", run, *flags)
    steps_done(process, run, 20)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == status
    (step,) = (int(path.name) for path in (run / "checkpoints").iterdir())
    assert 20 <= step < 1000
    assert f"step {step} is saved in {run}" in errors
    assert "Traceback" not in errors
    assert not (run / ".lock").exists()


@pytest.mark.slow
def test_ctrl_c_in_the_garbage_collector_stops_a_run(work, tmp_path):
    """Where Python would print it and go on; jax's own callback is such a place."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(_COLLECTOR.format(go=str(tmp_path / "go")))
    run, path = tmp_path / "run", os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    flags = toy_flags(steps=3000, checkpoint_every=1000)
    data = f"folder:{work / 'my parts'}"
    process = start("fit", "dpdiff", "--data", data, "--workdir", run, *flags, environment={"PYTHONPATH": path})
    steps_done(process, run, 20)
    (tmp_path / "go").touch()
    _, errors = process.communicate(timeout=300)
    assert (process.returncode, "ignored" in errors) == (130, False)


@pytest.mark.slow
def test_a_disk_that_is_full_while_a_step_is_saved_is_one_line(work, tmp_path):
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
    words = [
        "fit",
        "dpdiff",
        "--data",
        f"folder:{work / 'my parts'}",
        "--workdir",
        tmp_path / "run",
        *toy_flags(steps=2),
    ]
    program = f"{limit}from jaxad.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=600
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("jaxad: "))
    assert "could not be saved (File too large)" in line


@pytest.mark.slow
def test_what_a_killed_predict_left_is_removed_by_the_next(work, tmp_path):
    out = tmp_path / "out"
    words = ("--checkpoint", work / "bank", "--out", out, "--category", "disc", "--batch-size", "1")
    process = start("predict", work / "my parts/disc", *words)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 200 and not list(out.glob(".predict-*/new/*/*/*")):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert list(out.glob(".predict-*"))
    jaxad("predict", work / "my parts/disc/test/good/000.png", *words)
    assert sorted(path.name for path in out.iterdir()) == RESULTS
    assert len(list(map(json.loads, (out / "predictions.jsonl").read_text().splitlines()))) == 1


def steps_done(process: subprocess.Popen[str], run: Path, number: int) -> None:
    """Waits for so many rows of metrics.csv."""
    table, began = run / "metrics.csv", time.monotonic()
    while not (table.is_file() and table.read_text().count("\n") > number):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() - began < 300
        time.sleep(0.02)


_COLLECTOR = """
import gc, os, signal
def hit(phase, info):
    if phase == "start" and os.path.exists({go!r}):
        gc.callbacks.remove(hit)
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
gc.callbacks.append(hit)
"""
