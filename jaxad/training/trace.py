"""A profiler trace of some steps of a training, as `--profile` asks for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxad.errors import ConfigError
from jaxad.io.untrusted import told

FOLDER = "profile"


def read_range(text: str) -> tuple[int, int]:
    """The steps that "a:b" names, the first and the last.

    Raises:
        ConfigError: it is of another form.
    """
    match = re.fullmatch(r"(\d{1,9}):(\d{1,9})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"profile = {text}: must be the first step and the last, counted from 1, such as 20:24")
    return int(match[1]), int(match[2])


def check_range(steps: tuple[int, int] | None, last: int) -> None:
    """Raises ConfigError where these are no steps of a run of `last` steps; None passes."""
    if steps is not None and not 1 <= steps[0] <= steps[1] <= last:
        raise ConfigError(f"profile = {steps[0]}:{steps[1]}: must be steps of the {last} of this run")


def late(steps: tuple[int, int] | None, done: int) -> list[str]:
    """A warning where some of these steps, or all, are among those that are done; else nothing."""
    if steps is None or steps[0] > done:
        return []
    rest = f"the trace begins with step {done + 1}" if done < steps[1] else "there is none to trace, but in a new run"
    return [f"profile = {steps[0]}:{steps[1]}: {done} steps are done already; {rest}"]


class Trace:
    """The steps `first` to `last`, counted from 1, traced by jax.profiler; of several hosts each writes its own trace.

    What a step launches is waited for before the first of them and after the last, so that the trace holds whole steps;
    that changes none of their results. A profiler that fails, as on a full disk, is told of once and costs no step.

    Args:
        steps: the first and the last; None traces nothing.
        folder: of the run; the trace lies in its folder `profile`, for TensorBoard's profile plugin, XProf or Perfetto.
        warn: told of what has failed.
    """

    def __init__(
        self,
        steps: tuple[int, int] | None,
        folder: Path,
        warn: Callable[[Sequence[str]], object] = lambda texts: None,
    ):
        self._steps, self._folder, self._warn, self._runs = steps, folder / FOLDER, warn, False

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def begin(self, step: int, state: Any) -> None:
        """Called before a step, with the state that it starts from."""
        if self._steps is not None and self._steps[0] <= step <= self._steps[1] and not self._runs:
            jax.block_until_ready(state)
            self._runs = self._attempted(lambda: jax.profiler.start_trace(str(self._folder)))

    def end(self, step: int, state: Any) -> None:
        """Called after a step, with the state that it leaves."""
        if self._steps is not None and self._runs and step >= self._steps[1]:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._runs:
            self._runs = False
            self._attempted(jax.profiler.stop_trace)

    def _attempted(self, do: Callable[[], object]) -> bool:
        """Whether the profiler has done it; else there is no trace, and this was told."""
        try:
            do()
        except Exception as error:  # The profiler may raise whatever it likes.
            self._steps = None
            self._warn([f"{self._folder}: no trace ({told(error)}); the training goes on"])
            return False
        return True
