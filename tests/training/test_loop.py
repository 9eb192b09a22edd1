"""The loop on a trainer that only counts; tests/test_train.py runs it on a detector."""

import math
import os
import signal
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxad import parallel
from jaxad.config import TrainConfig
from jaxad.errors import TrainingError
from jaxad.io.progress import Reporter
from jaxad.io.signals import ONCE, Stopped, held, listening
from jaxad.parallel import LostProcessError
from jaxad.training import loop, run_folder
from jaxad.training.log import read_metrics
from jaxad.training.loop import train_loop
from jaxad.training.run_folder import Place


class Counter:
    """Its state is the number of steps, its loss a batch plus a number drawn with the key."""

    def __init__(self, bad_step=None):
        self._bad_step = bad_step

    def step(self, state, batch, key):
        term = math.inf if state == self._bad_step else 1.0
        return state + 1, {"loss": np.float32(batch + jax.random.uniform(key)), "term": np.float32(term)}


def run(start=0, bad_step=None):
    """Twelve steps, each third logged and each fourth saved -> what was logged, what was saved, the error."""
    logged, saved, error = {}, {}, None
    settings = {"start": start, "steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}
    trainer = Counter(bad_step)
    try:
        train_loop(trainer, start, float, on_log=logged.__setitem__, on_save=saved.__setitem__, **settings)
    except TrainingError as caught:
        error = str(caught)
    return logged, saved, error


def test_steps_are_logged_and_saved_when_due_and_the_last_is_left_to_the_caller():
    logged, saved, error = run()
    assert list(logged) == [3, 6, 9, 12]
    assert saved == {4: 4, 8: 8}
    assert [int(values["loss"]) for values in logged.values()] == [2, 5, 8, 11]
    assert len({values["loss"] % 1 for values in logged.values()}) == 4
    assert error is None


def test_what_is_evaluated_is_saved_before_where_looking_could_lose_it(monkeypatch):
    """The end, and with several processes, of which one may fail while the others wait, every step."""
    settings = {"start": 0, "steps": 5, "key": jax.random.key(0), "log_every": 9, "save_every": 9}
    whole = ["look 2", "look 4", "save 5", "look 5"]
    for processes, expected in ((1, whole), (2, ["save 2", "look 2", "save 4", *whole[1:]])):
        done = []
        monkeypatch.setattr(loop.jax, "process_count", lambda processes=processes: processes)
        monkeypatch.setattr(loop.parallel, "agreed_stop", lambda step, asked: None)
        monkeypatch.setattr(loop.parallel, "with_others", nullcontext)
        monkeypatch.setattr(loop.parallel, "to_host", lambda metrics: metrics)
        train_loop(
            Counter(),
            0,
            float,
            on_log=lambda *_: None,
            on_save=lambda step, _, done=done: done.append(f"save {step}"),
            on_evaluation=lambda step, _, done=done: done.append(f"look {step}"),
            evaluates=lambda step: step % 2 == 0 or step == 5,
            **settings,
        )
        assert done == expected


def resumed_after_3(folder, values, steps=4):
    """Steps from the third on, with evaluations there and after the last -> rows by step, saved steps, warnings."""
    saved, warned = [], []
    reporter = Reporter(quiet=True)
    reporter.warn = warned.extend
    place = Place(folder, parallel.make_mesh(), None, reporter)
    how = {"place": place, "settings": {}, "on_save": lambda step, _: saved.append(step)}
    evaluations = loop.Evaluations("holdout", 3, values)
    config = TrainConfig(steps=steps)
    loop.run_steps(Counter(), 3, float, config, resumed=3, steps=steps, evaluations=evaluations, **how)
    rows = read_metrics(folder / "evaluations-holdout.csv")
    return {int(row.pop("step")): row for row in rows}, saved, warned


def test_what_only_warned_on_the_way_does_so_after_resuming_and_what_is_not_finite_is_undefined(tmp_path):
    def values(state, told):
        if state == 3:
            raise OSError("busy")
        return {"loss": math.nan, "score_max": 2.0}

    rows, _, warned = resumed_after_3(tmp_path, values)
    assert [(step, row["loss"], row["score_max"]) for step, row in rows.items()] == [(4, "", "2.0")]
    assert ["step 3 (" in line for line in warned if "busy" in line] == [True]


def test_a_signal_does_not_lose_the_last_evaluation(tmp_path, monkeypatch):
    """After the last step, which is saved, no resumed run would make up for it."""

    def values(state, told):
        told(1)
        return {"loss": 1.0}

    monkeypatch.setattr(loop.signals, "asked", lambda: signal.SIGTERM)
    rows, saved, warned = resumed_after_3(tmp_path, values)
    assert (list(rows), saved, warned) == ([4], [4], [])


def test_evaluations_are_no_time_of_training(monkeypatch):
    monkeypatch.setattr(run_folder, "time", SimpleNamespace(perf_counter=iter([10.0, 11.0, 111.0, 112.0]).__next__))
    speed = run_folder.Speed(0, 4)
    speed(1)
    with speed.pause():
        pass
    assert speed(2) == 4 / 2


def test_a_resumed_loop_does_as_the_whole_one_did():
    logged = run()[0]
    assert run(start=8) == ({step: logged[step] for step in (9, 12)}, {}, None)


@pytest.mark.parametrize(("bad_step", "kept", "noticed"), [(2, [], 3), (3, [], 4), (8, [4, 8], 9), (11, [4, 8], 12)])
def test_a_step_that_is_not_finite_is_neither_logged_nor_saved(bad_step, kept, noticed):
    logged, saved, error = run(bad_step=bad_step)
    assert list(saved) == kept
    assert max(logged, default=0) < noticed
    assert f"at step {noticed} term is inf; begin anew" in error
    assert "learning_rate" in error


@pytest.mark.parametrize(("at", "kept"), [(5, [4, 6]), (7, [4, 8]), (11, [4, 8])])
def test_a_signal_finishes_and_saves_the_step_at_hand_but_the_last_is_the_callers(at, kept):
    """Sent while the batch of a step is made, which is ahead of the step."""
    logged, saved = {}, {}

    class Stop(Counter):
        def step(self, state, batch, key):
            if state == at:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().step(state, batch, key)

    settings = {"start": 0, "steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}
    with pytest.raises(Stopped) as stop, listening():
        train_loop(Stop(), 0, float, on_log=logged.__setitem__, on_save=saved.__setitem__, **settings)
    assert stop.value.status == 143
    assert saved == {step: step for step in kept}
    assert list(logged) == [step for step in (3, 6, 9, 12) if step <= at + 1]


def test_the_stop_at_a_step_is_not_raised_once_more_on_the_way_out():
    """What is held around the loop is left, and takes longer than the listener waits for one that is swallowed."""

    class Stop(Counter):
        def step(self, state, batch, key):
            os.kill(os.getpid(), signal.SIGTERM)
            return super().step(state, batch, key)

    nothing, left = {"on_log": lambda *_: None, "on_save": lambda *_: None}, []
    settings = {"start": 0, "steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}

    def run():
        try:
            train_loop(Stop(), 0, float, **nothing, **settings)
        finally:
            with held():
                left.append("held")
            threading.Event().wait(3 * ONCE)
            left.append("waited")

    with pytest.raises(Stopped), listening():
        run()
    assert left == ["held", "waited"]


def test_the_others_are_told_of_a_signal_once(monkeypatch):
    sent = []
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    monkeypatch.setattr(parallel.multihost_utils, "reached_preemption_sync_point", lambda step: step == 5)
    monkeypatch.setattr(parallel.os, "kill", lambda *signal: sent.append(signal))
    parallel._tell_others.cache_clear()
    assert [parallel.agreed_stop(step, signal.SIGINT) for step in (3, 4, 5)] == [None, None, signal.SIGINT]
    parallel._tell_others.cache_clear()
    assert sent == [(os.getpid(), signal.SIGTERM)]


def test_the_loss_of_another_process_is_named(monkeypatch):
    class Dead(Counter):
        def step(self, state, batch, key):
            raise jax.errors.JaxRuntimeError("INTERNAL: Connection reset by peer\nmore")

    settings = {"start": 0, "steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}
    nothing = {"on_log": lambda *_: None, "on_save": lambda *_: None}
    with pytest.raises(jax.errors.JaxRuntimeError):
        train_loop(Dead(), 0, float, **nothing, **settings)
    monkeypatch.setattr(parallel.jax, "process_count", lambda: 2)
    with pytest.raises(LostProcessError, match=r"process 0 of 2: .*reset by peer\).*start all") as error:
        train_loop(Dead(), 0, float, **nothing, **settings)
    assert error.value.abrupt
    assert "more" not in str(error.value)
