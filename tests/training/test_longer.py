"""A run that gets more steps, and one that is asked to end: nothing is done twice, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from typing import ClassVar

import pytest

import jaxad
from jaxad.errors import CheckpointError, ConfigError
from jaxad.io.signals import Stopped, listening
from jaxad.testing import toy_model, toy_training
from jaxad.training.logger import loggers
from jaxad.training.optimizer import make_optimizer
from jaxad.training.run_folder import claim
from tests.training.test_run_folder import RESOURCES
from tests.training.test_trainer import assert_bit_equal, rows


def lengthened(parts, workdir, *lengths, model=toy_model, **training):
    """A run that is asked for again with ever more steps."""
    for steps in lengths:
        run = jaxad.fit(
            model(), parts.train, toy_training(steps=steps, **training), workdir=workdir, holdout=parts.holdout
        )
    return run


def test_more_steps_continue_a_finished_run_as_if_they_had_been_asked_for(parts, trained, tmp_path):
    run = lengthened(parts, tmp_path / "run", 6, 12)
    assert_bit_equal(run.model, trained.model)
    assert run.threshold == trained.threshold
    assert rows(run.workdir) == rows(trained.workdir)
    assert json.loads((run.workdir / "config.json").read_text())["train"]["steps"] == 12
    assert jaxad.restore(run.workdir).meta["train"]["steps"] == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "training"),
    [
        ({}, {}),
        # These are measured after the last step, of what was trained: more steps go on from before.
        ({"levels": (300, 100)}, {}),
        ({"levels": (300, 100), "precondition": "retrieval", "image_score": "excess"}, {}),
        ({}, {"schedule": "cosine", "schedule_steps": 48, "warmup_steps": 4}),
        ({}, {"optimizer": "stable-adamw", "ema": None, "cache": "disk", "checkpoint_every": 7}),
    ],
    ids=["constant", "levels", "excess", "cosine", "disk"],
)
def test_24_then_48_steps_equal_48_straight_bit_for_bit(parts, tmp_path, changes, training):
    def model():
        return toy_model(**changes)

    straight = lengthened(parts, tmp_path / "straight", 48, model=model, **training)
    twice = lengthened(parts, tmp_path / "twice", 24, 48, model=model, **training)
    assert_bit_equal(twice.model, straight.model)
    assert twice.threshold == straight.threshold
    assert rows(twice.workdir) == rows(straight.workdir)


def test_a_run_does_not_end_at_a_step_that_was_saved_on_the_way(trained, tmp_path):
    """What detectors measure after the last step would be missing there."""
    run = shutil.copytree(trained.workdir, tmp_path / "run")
    settings = json.loads((run / "config.json").read_text())

    def asked(steps):
        return claim(run, {**settings, "train": {**settings["train"], "steps": steps}}, RESOURCES)

    # The step before the last.
    shutil.rmtree(run / "checkpoints/12")
    (saved,) = (int(folder.name) for folder in (run / "checkpoints").iterdir())
    with pytest.raises(CheckpointError, match=rf"train.steps: 12 there, {saved} now \(step {saved} was saved on"):
        asked(saved)
    assert asked(saved + 1) == asked(12) == []


def test_a_cosine_that_ended_is_another_training_unless_its_end_was_given(trained, tmp_path):
    run = shutil.copytree(trained.workdir, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    settings = json.loads((run / "config.json").read_text())

    def asked(steps, **schedule):
        return {**settings, "train": {**settings["train"], "schedule": "cosine", "steps": steps, **schedule}}

    (run / "config.json").write_text(json.dumps(asked(12)))
    with pytest.raises(CheckpointError, match=r"train.schedule_steps: 12 there, 24 now .*warm start"):
        claim(run, asked(24), RESOURCES)
    assert claim(run, asked(24, schedule_steps=12), RESOURCES) == []
    assert json.loads((run / "config.json").read_text())["train"]["steps"] == 24
    (run / "config.json").write_text(json.dumps(asked(12, schedule_steps=48)))
    assert claim(run, asked(24, schedule_steps=48), RESOURCES) == []


def test_the_rates_of_a_cosine_whose_end_is_given_do_not_depend_on_the_steps():
    cosine = {"schedule": "cosine", "warmup_steps": 2, "final_rate": 0.1}
    rates = [
        [float(make_optimizer(toy_training(steps=steps, **cosine, **more))[1](step)) for step in range(9)]
        for steps, more in ((8, {"schedule_steps": 20}), (20, {}), (8, {}))
    ]
    assert rates[0] == rates[1]
    assert rates[0] != rates[2]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"schedule_steps": 20}, "schedule_steps = 20: a constant schedule"),
        ({"schedule_steps": 5, "schedule": "cosine"}, "go on at a rate of 0"),
        ({"schedule_steps": 0, "schedule": "cosine"}, "schedule_steps = 0"),
    ],
)
def test_an_end_of_the_schedule_that_cannot_be(settings, named):
    with pytest.raises(ConfigError, match=named):
        toy_training(**settings).check()
    toy_training(schedule_steps=5, schedule="cosine", final_rate=0.5).check()


class Killer:
    """A logger that sends the process a signal when it gets the row of a step."""

    name = "killer"
    packages, extra = (), ""
    step, number = 0, signal.SIGTERM
    ended_by: ClassVar[BaseException | None] = None

    def __init__(self, run):
        pass

    def write(self, step, values):
        if step == self.step:
            os.kill(os.getpid(), self.number)

    def close(self, error):
        Killer.ended_by = error


@pytest.fixture
def heeded():
    """Signals that a job in the background may have been told to ignore."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_at_a_random_step_loses_at_most_that_step(parts, trained, tmp_path, monkeypatch, number):
    monkeypatch.setitem(loggers._entries, "killer", Killer)
    monkeypatch.setattr(Killer, "step", step := random.randrange(1, 12))
    monkeypatch.setattr(Killer, "number", number)
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    with pytest.raises(Stopped) as stop, listening():
        jaxad.fit(toy_model(), parts.train, toy_training(loggers=("killer",), checkpoint_every=100), **again)
    assert stop.value.status == 128 + number
    assert Killer.ended_by is stop.value
    # The step whose row was written when the signal came is saved, or the next one.
    saved = max(int(folder.name) for folder in (tmp_path / "run/checkpoints").iterdir())
    assert step <= saved <= step + 1, f"a signal at step {step} left step {saved}"
    assert len(rows(tmp_path / "run")) == saved
    resumed = jaxad.fit(toy_model(), parts.train, toy_training(), **again)
    assert_bit_equal(resumed.model, trained.model)
    assert rows(resumed.workdir) == rows(trained.workdir)
