"""Loggers by name: several at once, those that fail cost nothing, and what is missing is named before any work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import jaxad
from jaxad.errors import ConfigError
from jaxad.io.signals import Stopped
from jaxad.testing import toy_model, toy_training
from jaxad.training.log import RunLog, read_metrics
from jaxad.training.logger import LOGGED, LoggedRun, check_loggers, loggers, register_logger


class Kept:
    """Keeps what it gets."""

    name, packages, extra = "kept", (), ""

    def __init__(self, run):
        self.run, self.rows, self.closed = run, [], []
        Kept.last = self

    def write(self, step, values):
        self.rows.append((step, dict(values)))

    def close(self, error):
        self.closed.append(error)


class Unborn(Kept):
    name = "unborn"

    def __init__(self, run):
        raise RuntimeError("no server")


class Weak(Kept):
    name = "weak"

    def __init__(self, run):
        pass

    def write(self, step, values):
        if step > 1:
            raise ConnectionError("the server is gone")

    def close(self, error):
        pytest.fail("is closed though it has failed")


class Late(Kept):
    name = "late"

    def close(self, error):
        raise OSError("cannot be closed")


@pytest.fixture(autouse=True)
def registered():
    for cls in (Kept, Unborn, Weak, Late):
        register_logger(cls)
    yield
    for cls in (Kept, Unborn, Weak, Late):
        del loggers._entries[cls.name]


def test_all_get_every_row_and_those_that_fail_are_told_once(tmp_path):
    warned = []
    run = LoggedRun(tmp_path, {"system": "toy"}, 0)
    with RunLog(run, ("unborn", "weak", "late", "kept"), "test", warned.extend) as log:
        log.evaluation(0, {"image_auroc": 0.5, "aupro": None})
        for step in (1, 2, 3):
            log.metrics(step, {"loss": 1 / step, "images_per_second": None})
    assert Kept.last.run is run
    assert Kept.last.rows == [
        (0, {"evaluation/image_auroc": 0.5}),
        (1, {"loss": 1.0}),
        (2, {"loss": 0.5}),
        (3, {"loss": 0.333333}),
    ]
    assert Kept.last.closed == [None]
    assert [line.split()[1] for line in warned] == ["unborn", "weak", "late"]
    assert "no server" in warned[0]
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path / "metrics.csv")] == [
        ("1", "1.0"),
        ("2", "0.5"),
        ("3", "0.333333"),
    ]
    (row,) = read_metrics(tmp_path / "evaluations-test.csv")
    assert (row["step"], row["image_auroc"], row["aupro"]) == ("0", "0.5", "")


@pytest.mark.parametrize("error", [Stopped(15), ValueError("not finite")])
def test_they_are_told_what_ended_the_training(tmp_path, error):
    def train():
        with RunLog(LoggedRun(tmp_path, {}, 0), ("late", "kept"), None, lambda _: None) as log:
            log.metrics(1, {"loss": 1.0})
            raise error

    with pytest.raises(type(error)):
        train()
    assert Kept.last.closed == [error]
    assert len(read_metrics(tmp_path / "metrics.csv")) == 1


def test_they_get_settings_and_nothing_of_the_images(tmp_path):
    settings = {"system": "toy", "train": {"steps": 2}, "config": {}, "protocol": "exact-256", "false_alarm": 0.01}
    besides = {"data": {"source": "folder:/home/kim"}, "learned": ["0" * 32], "from": {"run": "/home/kim/run"}}
    assert LoggedRun.of(tmp_path, settings | besides, 3) == LoggedRun(tmp_path, settings, 3)


def test_a_table_that_cannot_be_written_costs_no_step(tmp_path):
    class Full:
        closed = False

        def write(self, text):
            raise OSError(28, "No space left on device")

        def close(self):
            raise OSError(28, "No space left on device")

    warned = []
    with RunLog(LoggedRun(tmp_path, {}, 0), ("kept",), None, warned.extend) as log:
        log._tables[0]._stream.close()
        log._tables[0]._stream = Full()
        for step in (1, 2):
            log.metrics(step, {"loss": 1.0})
    assert [step for step, _ in Kept.last.rows] == [1, 2]
    assert len(warned) == 1
    assert "No space left" in warned[0]


@pytest.mark.parametrize(
    ("name", "package"),
    [("tensorboard", "tensorboardX"), ("wandb", "wandb"), ("mlflow", "mlflow"), ("mlflow", "alembic")],
)
def test_a_missing_extra_is_one_line_before_any_work(parts, tmp_path, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError) as error:
        jaxad.fit(toy_model(), parts.train, toy_training(loggers=("kept", name)), workdir=tmp_path / "run")
    assert re.search(rf"{name} needs .*\b{package}\b.* \(pip install 'jaxad\[{name}\]'\)", str(error.value))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_an_unknown_logger_is_refused_with_those_that_there_are():
    with pytest.raises(ConfigError, match=r"'tensorbord' is unknown .*mean tensorboard.*; there are mlflow, .*, wandb"):
        check_loggers(("tensorbord",))


def test_libraries_of_loggers_are_imported_when_they_are_asked_for():
    """All of jaxad's own are found by their files, none of which imports its library at its head."""
    folder = Path(sys.modules["jaxad.training.logger"].__file__).with_name("loggers")
    names = {file.stem for file in folder.glob("[!_]*.py")}
    assert names == {"tensorboard", "wandb", "mlflow"}
    before = set(sys.modules)
    assert {loggers.get(name).name for name in names} == names
    assert not {"tensorboardX", "wandb", "mlflow"} & (set(sys.modules) - before)


@pytest.mark.slow
def test_a_run_tells_its_loggers_what_it_is(parts, tmp_path):
    training = toy_training(steps=2, loggers=("kept", "weak"))
    run = jaxad.fit(toy_model(), parts.train, training, workdir=tmp_path / "run")
    assert (Kept.last.run.workdir, Kept.last.run.resumed) == (run.workdir, 0)
    settings = Kept.last.run.settings
    assert set(settings) == set(LOGGED)
    assert (settings["system"], settings["train"]["steps"], settings["config"]["depth"]) == ("dpdiff", 2, 1)
    rows = read_metrics(run.workdir / "metrics.csv")
    assert [(step, values["loss"]) for step, values in Kept.last.rows] == [
        (int(row["step"]), float(row["loss"])) for row in rows
    ]
