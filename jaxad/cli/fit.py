"""What `jaxad fit` does for every system."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from jaxad.cli import flags as cli
from jaxad.cli.captions import captions_flags
from jaxad.cli.checks import command_line, data_flags, fit_problems, load_data, raise_problems, skipped
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import DataSet
    from jaxad.training.trainer import Run


def load_images(command: cli.Fit, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
    """The data of a system that takes no more than images, and nothing to record besides."""
    return load_data(command, command.holdout), {}


def fit(
    command: Any,
    *,
    own_problems: Callable[[Any], list[str]] = lambda command: [],
    load: Callable[[Any, Reporter], tuple[DataSet, dict[str, Any]]] = load_images,
) -> None:
    """`jaxad fit`.

    Args:
        command: of `cli.Fit`.
        own_problems: everything about the flags of this system alone that cannot work.
        load: the system's data, and what to record of it.
    """
    import jax

    from jaxad import parallel
    from jaxad.detector import detectors
    from jaxad.training import trainer as train

    config = command.model
    if command.image_size is not None:
        config = dataclasses.replace(config, image_size=command.image_size)
    problems = fit_problems(command, config)
    if not 0 < command.false_alarm < 1:
        problems.append(f"--false-alarm {command.false_alarm}: must lie between 0 and 1")
    problems += own_problems(command)
    raise_problems(problems)

    parallel.start_processes()
    reporter = Reporter(quiet=not parallel.is_main_process())
    dataset, own = load(command, reporter)
    reporter.say(dataset.summary())
    reporter.warn([str(problem) for problem in dataset.problems])
    provenance = {**own, "holdout": command.holdout, "preset": command.preset, "skipped": skipped(dataset)}
    detector = detectors.get(command.system).create(
        config, key=jax.random.key(command.train.seed if command.train else 0)
    )
    result = train.fit(
        detector,
        dataset.train,
        command.train,
        workdir=command.workdir,
        holdout=dataset.holdout,
        false_alarm=command.false_alarm,
        protocol=command.protocol,
        provenance=provenance,
        workers=command.workers,
        reporter=reporter,
    )
    reporter.say(f"{result.workdir}: done in {result.seconds:.0f} s")
    reporter.say(f"next: {next_command(command, dataset, result)}")


def next_command(command: cli.Fit, dataset: DataSet, result: Run) -> str:
    """The command to run after a fit: evaluation where there are labels, else prediction."""
    checkpoint = ("--checkpoint", command.workdir)
    if any(record.label is not None for record in dataset.test.records):
        protocol = ("--protocol", command.protocol) if command.protocol != "exact-256" else ()
        out = ("--out", f"{command.workdir}-report", *protocol)
        return command_line("evaluate", *checkpoint, *data_flags(command), *captions_flags(command, result.model), *out)
    category = ("--category", "NAME") if result.model.inputs.needs_category else ()
    return command_line("predict", "IMAGE_OR_FOLDER", *checkpoint, "--out", f"{command.workdir}-predictions", *category)
