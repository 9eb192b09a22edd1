"""The loop on a trainer that only counts; tests/test_train.py runs it on a detector."""

import math
import os
import signal
import threading

import jax
import numpy as np
import pytest

from jaxad import parallel
from jaxad.errors import TrainingError
from jaxad.io.signals import ONCE, Stopped, held, listening
from jaxad.parallel import LostProcessError
from jaxad.training.loop import train_loop


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
