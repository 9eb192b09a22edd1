"""What `jaxad fit` does for every system."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from jaxad import cli_flags as cli
from jaxad.command_checks import command_line, fit_problems, raise_problems, skipped
from jaxad.config import DataConfig
from jaxad.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import DataSet


def fit(command: cli.Fit) -> None:
    """`jaxad fit`."""
    import jax

    from jaxad import data, parallel, shots, train
    from jaxad.systems import system

    config = command.model
    if command.image_size is not None:
        config = dataclasses.replace(config, image_size=command.image_size)
    problems = fit_problems(command, config)
    if not 0 <= command.holdout < 1:
        problems.append(f"--holdout {command.holdout}: needs to be at least 0 and below 1")
    if not 0 < command.false_alarm < 1:
        problems.append(f"--false-alarm {command.false_alarm}: needs to lie between 0 and 1")
    if isinstance(command, cli.FitCLIPFusion):
        problems += shots.problems(command)
    if isinstance(command, cli.FitVLMDiff) and command.captions is not None and command.model.captions == "never":
        problems.append(f"--captions {command.captions}: not used with --model.captions never, which DiAD's preset has")
    raise_problems(problems)

    parallel.start_processes()
    reporter = Reporter(quiet=not parallel.is_main_process())
    chosen: dict[str, Any] = {}
    if isinstance(command, cli.FitCLIPFusion):
        dataset, chosen = shots.load(command)
    else:
        data_config = DataConfig(command.data, command.categories, command.holdout, command.on_bad, command.workers)
        dataset = data.load(command.data, command.data_dir, config=data_config)
    reporter.say(dataset.summary())
    reporter.warn([str(problem) for problem in dataset.problems])
    provenance = {**chosen, "holdout": command.holdout, "preset": command.preset, "skipped": skipped(dataset)}
    if isinstance(command, cli.FitVLMDiff):
        dataset, provenance["captions"] = _captioned(command, dataset, reporter)
    detector = system(command.system).create(config, key=jax.random.key(command.train.seed if command.train else 0))
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
    reporter.say(f"next: {_next(command, dataset)}")


def _captioned(command: cli.FitVLMDiff, dataset: DataSet, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
    """The data set with the captions of `--captions`, and what to record of the training images' captions."""
    from jaxad.described import caption_record, described

    if command.model.captions == "never" or (command.model.captions == "train" and command.model.trained):
        return dataset, {"source": None, "images": 0, "missing": 0}
    train, holdout = (described(part, command.captions, "train") for part in (dataset.train, dataset.holdout))
    record = caption_record(train, command.captions, "train", reporter)
    return dataclasses.replace(dataset, train=train, holdout=holdout), record


def _next(command: cli.Fit, dataset: DataSet) -> str:
    """The command to run after a fit: evaluation where there are labels, else prediction."""
    checkpoint, categories = ("--checkpoint", command.workdir), command.categories or ()
    if any(record.label is not None for record in dataset.test.records):
        out = ("--out", f"{command.workdir}-report", *(("--categories", *categories) if categories else ()))
        out = (*out, *(("--protocol", command.protocol) if command.protocol != "exact-256" else ()))
        where = () if command.data_dir is None else ("--data-dir", command.data_dir)
        return command_line("evaluate", *checkpoint, "--data", command.data, *where, *out)
    category = ("--category", "NAME") if isinstance(command, cli.FitCLIPFusion) else ()
    return command_line("predict", "IMAGE_OR_FOLDER", *checkpoint, "--out", f"{command.workdir}-predictions", *category)
