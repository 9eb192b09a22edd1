"""The loop of optimizer steps, for detectors and all else that trains: batches ahead, metrics, progress, saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import jax

from jaxad import parallel
from jaxad.config import FirstStageTrainConfig, TrainConfig
from jaxad.errors import TrainingError
from jaxad.io import signals
from jaxad.io.progress import Reporter
from jaxad.training.log import MetricsLog
from jaxad.training.run_folder import Speed

BatchAt = Callable[[int], Any]
"""The batch of a step counted from 0; a pure function of the step, asked for in order."""


class Trainer(Protocol):
    """Anything that `train_loop` can run."""

    def step(self, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Mapping[str, jax.Array]]:
        """One optimizer step; metrics are scalars left on the device."""
        ...


def run_steps(
    trainer: Trainer,
    state: Any,
    batch_at: BatchAt,
    config: TrainConfig | FirstStageTrainConfig,
    *,
    resumed: int,
    steps: int,
    workdir: Path,
    on_save: Callable[[int, Any], object],
    columns: Callable[[int], Mapping[str, float]] = lambda step: {},
    reporter: Reporter,
) -> tuple[Any, float | None]:
    """`train_loop` with a progress bar and metrics.csv in `workdir`.

    Args:
        trainer, state, batch_at, steps: as in `train_loop`.
        config: seed, intervals, images of a step.
        resumed: steps done before.
        workdir: folder of the run.
        on_save: called every `config.checkpoint_every` steps, but not after the last.
        columns: further values for the row of a step in metrics.csv.
        reporter: shows progress.

    Returns:
        The state after `steps` steps, and images per second, None where too few steps were logged to tell.

    Raises:
        TrainingError: a term of the loss is not finite.
        Stopped: a signal asked for it; the step at hand is done and saved.
    """
    speed = Speed(resumed, config.batch_size * config.accumulate)
    tensorboard = workdir if config.tensorboard else None
    log = MetricsLog(workdir / "metrics.csv", resumed, tensorboard, reporter.warn)

    def on_log(step: int, metrics: dict[str, float]) -> None:
        rate = speed(step)
        row = {**columns(step), **metrics, "images_per_second": rate if math.isfinite(rate) else None}
        log.write(step, row)
        bar(step, metrics, rate)

    with reporter.steps("train", steps, resumed) as bar, log:
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
        )
    return state, speed.rate


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
) -> Any:
    """Steps from `start` to `steps`; the next batch is made while the device works.

    Args:
        trainer: see `Trainer`.
        state: as after `start` steps.
        batch_at: makes the batches.
        key: each step folds in its number, so that a resumed run draws the same noise.
        on_log: called with the number of steps done and their metrics; this and saving alone wait for the device.
        on_save: called every `save_every` steps and where a signal asks to stop, but not after the last.

    Returns:
        The state after `steps` steps.

    Raises:
        TrainingError: a metric of a step that is logged or saved is not finite; such a step is neither.
        Stopped: a signal asked for it (`jaxad.io.signals`); the step at hand is done and saved.
        LostProcessError: another process of a run on several hosts has died.
    """
    with signals.held(), parallel.with_others():
        upcoming = batch_at(start) if start < steps else None
        for step in range(start, steps):
            state, metrics = trainer.step(state, upcoming, jax.random.fold_in(key, step))
            done = step + 1
            # While the device works at the step. Not in a thread: processes must begin their programs in one order.
            upcoming, failure = _attempted(batch_at, done) if done < steps else (None, None)
            stop = parallel.agreed_stop(done, signals.asked()) if done < steps else None
            logs, saves = done % log_every == 0 or done == steps, done % save_every == 0 and done < steps
            saves = saves or stop is not None
            if logs or saves:
                values = {name: float(value) for name, value in parallel.to_host(metrics).items()}
                _check_finite(done, values)
                if logs:
                    on_log(done, values)
                if saves:
                    on_save(done, state)
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


def _check_finite(step: int, values: Mapping[str, float]) -> None:
    if bad := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise TrainingError(
            f"training diverged: at step {step} {', '.join(bad)}; begin anew, in another workdir, with a lower "
            "learning_rate or, where there is one, a clip_norm; earlier checkpoints are kept"
        )
