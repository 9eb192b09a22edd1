"""The loop of optimizer steps, for detectors and all else that trains: batches ahead, rows, progress, saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np

from jaxad import parallel
from jaxad.config import FirstStageTrainConfig, TrainConfig
from jaxad.errors import TrainingError
from jaxad.io import signals
from jaxad.io.untrusted import told
from jaxad.training.log import RunLog
from jaxad.training.logger import LoggedRun
from jaxad.training.run_folder import Place, Speed
from jaxad.training.trace import Trace, late

BatchAt = Callable[[int], Any]
"""The batch of a step counted from 0; a pure function of the step, asked for in order."""


class Trainer(Protocol):
    """Anything that `train_loop` can run."""

    def step(self, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Mapping[str, jax.Array]]:
        """One optimizer step; metrics are scalars left on the device."""
        ...


class CutShortError(Exception):
    """An evaluation makes way for the end that a signal asks for; the resumed run has it again."""


Progress = Callable[[int], None]
"""Told on the way of how many images were done since; may raise."""


def cut_short(_: int) -> None:
    """Raises `CutShortError` where a signal has come; several processes, which would have to agree, go on."""
    if signals.asked() is not None and jax.process_count() == 1:
        raise CutShortError


def _to_the_end(_: int) -> None:
    """In place of `cut_short` where no resumed run would make up for it."""


@dataclass(frozen=True)
class Evaluations:
    """What is computed of the state on the way.

    Attributes:
        part: of the data, "holdout" or "test", by which the table is called.
        every: steps between two of them.
        values: of a state, by name; None for one that is undefined. It changes nothing of the state, and calls what it
            is given, which may raise, on its way.
    """

    part: str
    every: int
    values: Callable[[Any, Progress], Mapping[str, float | None]]

    def due(self, step: int, steps: int) -> bool:
        """Whether there is one after so many steps of a training of `steps`."""
        return step % self.every == 0 or step == steps


def run_steps(
    trainer: Trainer,
    state: Any,
    batch_at: BatchAt,
    config: TrainConfig | FirstStageTrainConfig,
    *,
    resumed: int,
    steps: int,
    place: Place,
    settings: Mapping[str, Any],
    on_save: Callable[[int, Any], object],
    columns: Callable[[int], Mapping[str, float]] = lambda step: {},
    evaluations: Evaluations | None = None,
) -> tuple[Any, float | None]:
    """`train_loop` with progress, the tables of `place.workdir`, loggers, and a trace where one is asked for.

    Args:
        trainer, state, batch_at, steps: as in `train_loop`.
        config: seed, intervals, images of a step, loggers.
        resumed: steps done before.
        place: folder of the run, who shows progress, which steps are traced.
        settings: JSON values of config.json, some of which loggers get.
        on_save: as in `train_loop`, every `config.checkpoint_every` steps.
        columns: further values for the row of a step in metrics.csv.
        evaluations: what is computed on the way.

    Returns:
        The state after `steps` steps, and images per second, None where too few steps were logged to tell.

    Raises:
        TrainingError: a term of the loss is not finite.
        Stopped: a signal asked for it; the step at hand is done and saved.
    """
    speed, reporter = Speed(resumed, config.batch_size * config.accumulate), place.reporter
    run = LoggedRun.of(place.workdir, settings, resumed)
    log = RunLog(run, config.loggers, None if evaluations is None else evaluations.part, reporter.warn)

    def on_log(step: int, metrics: dict[str, float]) -> None:
        rate = speed(step)
        log.metrics(step, {**columns(step), **metrics, "images_per_second": rate if math.isfinite(rate) else None})

    def evaluate(step: int, state: Any) -> None:
        assert evaluations is not None
        # A run that is resumed after the last step, which is saved, is at its end.
        with speed.pause():
            values = evaluations.values(state, cut_short if step < steps else _to_the_end)
        log.evaluation(step, {name: value if _is_finite(value) else None for name, value in values.items()})

    def on_evaluation(step: int, state: Any) -> None:
        try:
            evaluate(step, state)
        except CutShortError:
            pass
        except Exception as error:
            # Of several processes the others would wait for this one.
            if jax.process_count() > 1:
                raise
            reporter.warn([f"no evaluation after step {step} ({told(error)}); the training goes on"])

    reporter.warn(late(place.profile, resumed))
    with (
        log,
        Trace(place.profile, place.workdir, reporter.warn) as trace,
        reporter.steps("train", steps, resumed) as progress,
    ):
        if evaluations is not None and evaluations.due(resumed, steps) and log.lacks_evaluation(resumed):
            if resumed:
                on_evaluation(resumed, state)
            else:
                # Before anything is to be lost, so that an evaluation that cannot be is an error.
                with suppress(CutShortError):
                    evaluate(resumed, state)
        state = train_loop(
            trainer,
            state,
            batch_at,
            start=resumed,
            steps=steps,
            key=jax.random.key(config.seed),
            log_every=config.log_every,
            on_log=on_log,
            save_every=config.checkpoint_every,
            on_save=on_save,
            on_evaluation=None if evaluations is None else on_evaluation,
            evaluates=lambda step: evaluations is not None and evaluations.due(step, steps),
            progress=progress,
            trace=trace,
        )
    return state, speed.rate


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


class _Unseen:
    """Progress that nobody sees."""

    def due(self) -> bool:
        return False

    def __call__(self, step: int, loss: float | None) -> None:
        pass


class Shown(Protocol):
    """Who shows progress (`jaxad.io.progress.StepCounter`)."""

    def due(self) -> bool:
        """Whether it is time to show something."""
        ...

    def __call__(self, step: int, loss: float | None) -> None:
        """Steps done, and the loss of the last one."""
        ...


def train_loop(
    trainer: Trainer,
    state: Any,
    batch_at: BatchAt,
    *,
    start: int,
    steps: int,
    key: jax.Array,
    log_every: int,
    on_log: Callable[[int, dict[str, float]], None],
    save_every: int,
    on_save: Callable[[int, Any], object],
    on_evaluation: Callable[[int, Any], None] | None = None,
    evaluates: Callable[[int], bool] = lambda step: False,
    progress: Shown | None = None,
    trace: Trace | None = None,
) -> Any:
    """Steps from `start` to `steps`; the next batch is made while the device works.

    Args:
        trainer: see `Trainer`.
        state: as after `start` steps.
        batch_at: makes the batches.
        key: each step folds in its number, so that a resumed run draws the same noise.
        on_log: called with the number of steps done and their metrics. This, saving, evaluations and progress that is
            due wait for the device.
        on_save: called every `save_every` steps and where a signal asks to stop. The last step is left to the caller
            unless it is evaluated: it is saved before, as is every one that several processes evaluate.
        on_evaluation: called after the steps that `evaluates` names, but for one at which a signal asks to stop; it
            must leave the state as it is.
        progress: shown when it is due, and after the last step.
        trace: told of every step.

    Returns:
        The state after `steps` steps.

    Raises:
        TrainingError: a metric of a step that is logged, saved or evaluated is not finite; it is none of these then.
        Stopped: a signal asked for it (`jaxad.io.signals`); the step at hand is done and saved.
        LostProcessError: another process of a run on several hosts has died.
    """
    progress = progress or _Unseen()
    with signals.held(), parallel.with_others():
        upcoming = batch_at(start) if start < steps else None
        for step in range(start, steps):
            done = step + 1
            if trace is not None:
                trace.begin(done, state)
            with jax.profiler.StepTraceAnnotation("train", step_num=done):
                state, metrics = trainer.step(state, upcoming, jax.random.fold_in(key, step))
                # While the device works at the step. Not in a thread: processes must begin their programs in one order.
                upcoming, failure = _attempted(batch_at, done) if done < steps else (None, None)
            if trace is not None:
                trace.end(done, state)
            stop = parallel.agreed_stop(done, signals.asked()) if done < steps else None
            logs, saves = done % log_every == 0 or done == steps, done % save_every == 0 and done < steps
            saves = saves or stop is not None
            looks = on_evaluation is not None and evaluates(done) and stop is None
            # By looking nothing must be lost that is not done again: the end, and what others did where one fails.
            saves = saves or (looks and (done == steps or jax.process_count() > 1))
            if logs or saves or looks:
                values = {name: float(value) for name, value in parallel.to_host(metrics).items()}
                _check_finite(done, values)
                if logs:
                    on_log(done, values)
                if saves:
                    on_save(done, state)
                if looks and on_evaluation is not None:
                    on_evaluation(done, state)
                    # A signal cuts an evaluation short, so that the step at hand is this one.
                    stop = signals.asked() if done < steps and jax.process_count() == 1 else None
                    if stop is not None and not saves:
                        on_save(done, state)
            if done == steps or progress.due():
                progress(done, _own_loss(metrics))
            if stop is not None:
                raise signals.stopped(stop)
            if failure is not None:
                raise failure
    return state


def _attempted(batch_at: BatchAt, step: int) -> tuple[Any, Exception | None]:
    """The batch of a step, or what was raised in its place, which must not lose the step before."""
    try:
        return batch_at(step), None
    except Exception as error:
        return None, error


def _own_loss(metrics: Mapping[str, Any]) -> float | None:
    """The loss as this process has it, without asking the others, who may not look at the same step."""
    loss = metrics.get("loss")
    own = loss.addressable_data(0) if isinstance(loss, jax.Array) else loss
    return None if own is None else float(np.asarray(own))


def _check_finite(step: int, values: Mapping[str, float]) -> None:
    if bad := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise TrainingError(
            f"training diverged: at step {step} {', '.join(bad)}; begin anew, in another workdir, with a lower "
            "learning_rate or, where there is one, a clip_norm; earlier checkpoints are kept"
        )
