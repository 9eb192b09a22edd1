"""Traces of steps by jax's profiler."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxad.errors import ConfigError
from jaxad.training import trace
from jaxad.training.loop import train_loop
from jaxad.training.trace import Trace, check_range, late, read_range
from tests.training.test_loop import Counter


def test_steps_are_counted_from_1_and_lie_in_the_run():
    assert read_range("20:24") == (20, 24)
    assert read_range("3:3") == (3, 3)
    for text in ("20", "0:4", "5:4", "a:b", "3:", "-1:4", "1:4:2"):
        with pytest.raises(ConfigError, match="profile = "):
            read_range(text)
    check_range(None, 3)
    check_range((1, 3), 3)
    with pytest.raises(ConfigError, match="steps of the 3"):
        check_range((2, 4), 3)


def test_steps_that_are_done_cannot_be_traced():
    assert late(None, 5) == late((6, 7), 5) == []
    assert "begins with step 6" in late((5, 6), 5)[0]
    assert "none to trace" in late((4, 5), 5)[0]


@pytest.fixture
def calls(monkeypatch):
    """What the profiler is told, after how many steps."""
    told = []
    monkeypatch.setattr(trace.jax.profiler, "start_trace", lambda folder: told.append(("start", folder, Told.steps)))
    monkeypatch.setattr(trace.jax.profiler, "stop_trace", lambda: told.append(("stop", Told.steps)))
    return told


class Told(Counter):
    steps = 0

    def step(self, state, batch, key):
        Told.steps = state + 1
        return super().step(state, batch, key)


CASES = [((3, 5), 0, [2, 5]), ((3, 5), 3, [3, 5]), ((3, 12), 0, [2, 12]), ((1, 1), 0, [0, 1])]


@pytest.mark.parametrize(("asked", "start", "expected"), [*CASES, ((3, 5), 5, []), (None, 0, [])])
def test_whole_steps_are_traced(calls, tmp_path, asked, start, expected):
    Told.steps = start
    settings = {"steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}
    nothing = {"on_log": lambda *_: None, "on_save": lambda *_: None}
    with Trace(asked, tmp_path) as tracing:
        train_loop(Told(), start, float, start=start, **settings, **nothing, trace=tracing)
    assert [call[-1] for call in calls] == expected
    assert all(call[1] == str(tmp_path / "profile") for call in calls if call[0] == "start")


def test_a_training_that_ends_early_leaves_a_whole_trace(calls, tmp_path):
    Told.steps, settings = 0, {"steps": 12, "key": jax.random.key(0), "log_every": 3, "save_every": 4}
    nothing = {"on_log": lambda *_: 1 / 0, "on_save": lambda *_: None}
    with Trace((1, 9), tmp_path) as tracing, pytest.raises(ZeroDivisionError):
        train_loop(Told(), 0, float, start=0, **settings, **nothing, trace=tracing)
    assert [call[0] for call in calls] == ["start", "stop"]


@pytest.mark.parametrize("failing", ["start_trace", "stop_trace"])
def test_a_profiler_that_fails_is_told_of_once_and_costs_nothing(calls, tmp_path, monkeypatch, failing):
    monkeypatch.setattr(trace.jax.profiler, failing, lambda *_: 1 / 0)
    settings, warned = {"steps": 4, "key": jax.random.key(0), "log_every": 3, "save_every": 4}, []
    logged = {}
    Told.steps = 0
    with Trace((1, 2), tmp_path, warned.extend) as tracing:
        train_loop(Told(), 0, float, start=0, on_log=logged.__setitem__, on_save=dict, **settings, trace=tracing)
    assert list(logged) == [3, 4]
    with Trace((1, 9), tmp_path, warned.extend) as tracing, pytest.raises(KeyError):
        train_loop(Told(), 0, {0: 0.0}.__getitem__, start=0, on_log=dict, on_save=dict, **settings, trace=tracing)
    assert [line.split(": ")[0] for line in warned] == [str(tmp_path / "profile")] * 2
    assert "division by zero" in warned[0]


@pytest.mark.slow
def test_the_profiler_writes_what_its_viewers_read(tmp_path):
    with Trace((1, 1), tmp_path) as tracing:
        tracing.begin(1, np.zeros(1))
        tracing.end(1, jax.jit(lambda x: x + 1)(np.zeros(4)))
    (file,) = (tmp_path / "profile").glob("plugins/profile/*/*.xplane.pb")
    assert file.stat().st_size > 1000
