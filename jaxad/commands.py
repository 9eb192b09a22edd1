"""What the commands of `jaxad.cli` do."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from jaxad import cli
from jaxad.config import DataConfig, DPDiffConfig, PatchBankConfig, TrainConfig
from jaxad.errors import ConfigError, DataError
from jaxad.progress import Reporter


def run(command: Any) -> None:
    """Runs a parsed command.

    Raises:
        JaxadError: anything a user can mend; printed without a traceback.
    """
    actions = {
        cli.Demo: demo,
        cli.FitDPDiff: fit,
        cli.FitPatchBank: fit,
        cli.Evaluate: evaluate,
        cli.Predict: predict,
        cli.Check: check,
        cli.Bench: bench,
    }
    actions[type(command)](command)


def fit(command: cli.FitDPDiff | cli.FitPatchBank) -> None:
    """`jaxad fit`."""
    from jaxad import data, parallel, train
    from jaxad.systems import system

    parallel.start_processes()
    reporter = Reporter(quiet=not parallel.is_main_process())
    config = command.model
    if command.image_size is not None:
        config = dataclasses.replace(config, image_size=command.image_size)
    config.check()
    if command.train is not None:
        command.train.check()
    data_config = DataConfig(command.data, command.categories, command.holdout, command.on_bad, command.workers)
    dataset = data.load(command.data, config=data_config)
    reporter.say(dataset.summary())
    reporter.warn([str(problem) for problem in dataset.problems])
    detector = system(command.system).create(config, key=_key(command.train.seed if command.train else 0))
    result = train.fit(
        detector,
        dataset.train,
        command.train,
        workdir=command.workdir,
        holdout=dataset.holdout,
        false_alarm=command.false_alarm,
        protocol=command.protocol,
        provenance={"holdout": command.holdout, "preset": command.preset, "skipped": _skipped(dataset)},
        workers=command.workers,
        reporter=reporter,
    )
    reporter.say(f"{result.workdir}: done in {result.seconds:.0f} s")
    reporter.say(
        f"next: jaxad evaluate --checkpoint {result.workdir} --data {command.data} --out {result.workdir}-report"
    )


def evaluate(command: cli.Evaluate) -> None:
    """`jaxad evaluate`."""
    from jaxad import checkpoint, data
    from jaxad.evaluate import figures, make_report, score
    from jaxad.report import write_report

    reporter = Reporter()
    restored = checkpoint.restore(command.checkpoint, backbone=command.backbone, **_overrides(command.override))
    other = None if command.baseline is None else checkpoint.restore(command.baseline)
    config = DataConfig(command.data, command.categories, 0.0, command.on_bad, command.workers)
    dataset = data.load(command.data, config=config)
    if not len(dataset.test):
        raise DataError(f"{command.data}: no test images; put some below CATEGORY/test/good and CATEGORY/test/DEFECT")
    options = {"protocol": command.protocol, "batch_size": command.batch_size, "workers": command.workers}

    def scored(detector, what: str):
        with reporter.images(what, len(dataset.test)) as progress:
            return score(detector, dataset.test, progress=progress, **options)

    mine = scored(restored.detector, "evaluate")
    theirs = None if other is None else scored(other.detector, "baseline")
    threshold = restored.threshold
    if threshold is not None and threshold.protocol != command.protocol:
        reporter.warn([f"threshold left out: it was measured under {threshold.protocol}, not {command.protocol}"])
        threshold = None
    report = make_report(
        mine,
        dataset,
        threshold=threshold,
        baseline=None if theirs is None else make_report(theirs, dataset),
        provenance={name: restored.meta[name] for name in ("train", "data", "step", "backbone")},
    )
    page = write_report(
        command.out, report, evaluation=figures(mine, threshold=threshold, baseline=theirs, names=_names(mine, theirs))
    )
    print_table(report)
    reporter.say(f"{page}")


def predict(command: cli.Predict) -> None:
    """`jaxad predict`."""
    from jaxad import checkpoint, viz
    from jaxad.data import ImageList
    from jaxad.predict import check_readable, predict_stream

    reporter = Reporter()
    missing = [str(path) for path in command.images if not path.exists()]
    if missing or not command.images:
        raise DataError(f"no such file or folder: {', '.join(missing)}" if missing else "no images given")
    restored = checkpoint.restore(command.checkpoint, backbone=command.backbone)
    known = restored.detector.categories
    if command.category and command.category not in known:
        raise ConfigError(f"--category {command.category}: the checkpoint knows {', '.join(known)}")
    source = ImageList(list(command.images), command.category)
    check_readable(source, command.workers)
    inputs = viz.identities(record.file for record in source.records)
    command.out.mkdir(parents=True, exist_ok=True)
    lines, flagged = [], 0
    with reporter.images("predict", len(source)) as progress:
        stream = predict_stream(
            restored.detector,
            source,
            threshold=restored.threshold,
            protocol=restored.meta["protocol"],
            batch_size=command.batch_size,
            workers=command.workers,
            progress=progress,
        )
        names = _unique_names(source)
        for index, prediction in enumerate(stream):
            lines.append(json.dumps(prediction.to_json()))
            flagged += bool(prediction.anomalous)
            _save_pictures(command, names[index], source, index, prediction, restored.threshold, inputs)
    viz.write_file(command.out / "predictions.jsonl", ("\n".join(lines) + "\n").encode(), protect=inputs)
    verdict = (
        f"{flagged} of {len(source)} images are anomalous" if restored.threshold else f"{len(source)} images scored"
    )
    print(f"{verdict}; see {command.out / 'predictions.jsonl'}")
    if restored.threshold is None:
        reporter.warn(["the checkpoint has no threshold (fit with --holdout above 0): scores only, no decisions"])


def check(command: cli.Check) -> None:
    """`jaxad check`; fails where a problem would stop a run."""
    from jaxad import data

    config = DataConfig(command.data, command.categories, 0.0, "skip", command.workers)
    dataset = data.load(command.data, config=config)
    print(dataset.summary())
    fatal = [problem for problem in dataset.problems if problem.fatal]
    for problem in dataset.problems:
        print(f"{'problem' if problem.fatal else 'note'}: {problem}")
    if command.json is not None:
        content = {"counts": dataset.counts, "problems": [dataclasses.asdict(problem) for problem in dataset.problems]}
        command.json.write_text(json.dumps(content, indent=2))
    if fatal:
        raise DataError(f"{len(fatal)} problems would stop a run; mend them, or fit and evaluate with --on-bad skip")
    print("nothing that would stop a run")


def demo(command: cli.Demo) -> None:
    """`jaxad demo`: DPDiff-AD against the patch bank on the demo data, and how to go on from there."""
    from jaxad import data
    from jaxad.evaluate import figures, make_report, score
    from jaxad.features import FeatureCache
    from jaxad.report import write_report
    from jaxad.systems.dpdiff import DPDiff
    from jaxad.systems.patch_bank import PatchBank
    from jaxad.train import fit as train

    reporter = Reporter()
    folder = data.make_demo(command.out / "data")
    dataset = data.load(f"folder:{folder}")
    reporter.say(dataset.summary())
    detector = DPDiff.create(DPDiffConfig.preset("small"), key=_key(command.seed))
    settings = TrainConfig.preset("small", steps=command.steps, seed=command.seed)
    with reporter.images("features", len(dataset.train)) as progress:
        features = FeatureCache.build(detector, dataset.train, progress=progress)
    run = train(
        detector,
        dataset.train,
        settings,
        workdir=command.out / "run",
        holdout=dataset.holdout,
        features=features,
        reporter=reporter,
    )
    bank = PatchBank.create(PatchBankConfig.preset("small"), backbone=detector.backbone)
    bank.remember(dataset.train, features=features)
    with reporter.images("evaluate", len(dataset.test)) as progress:
        mine = score(run.model, dataset.test, progress=progress)
    with reporter.images("baseline", len(dataset.test)) as progress:
        theirs = score(bank, dataset.test, progress=progress)
    provenance = {"train": dataclasses.asdict(settings)}
    report = make_report(
        mine, dataset, threshold=run.threshold, baseline=make_report(theirs, dataset), provenance=provenance
    )
    evaluation = figures(mine, threshold=run.threshold, baseline=theirs, names=_names(mine, theirs))
    page = write_report(command.out / "report", report, evaluation=evaluation)
    print_table(report)
    print(
        f"\nThe report: {page}\n"
        f"Judge images: jaxad predict {folder}/brick/test --checkpoint {run.workdir} --out {command.out}/predictions\n"
        "Your own parts, in folders CATEGORY/train/good and, where you have them, CATEGORY/test/...:\n"
        "  jaxad fit dpdiff --data folder:/my/parts --workdir runs/parts --preset small\n"
        "  jaxad evaluate --checkpoint runs/parts --data folder:/my/parts --out runs/parts-report"
    )


def bench(command: cli.Bench) -> None:
    """`jaxad bench`."""
    from jaxad import bench as benchmarks

    benchmarks.main([command.what])


def print_table(report: dict[str, Any]) -> None:
    """The metrics of every category, and of the baseline below, in percent on stdout."""
    from rich.console import Console
    from rich.table import Table

    from jaxad.results import METRICS

    table = Table(title=f"protocol {report['protocol']}, percent")
    for name in ("category", *METRICS, "mad"):
        table.add_column(name.replace("_", " "), justify="left" if name == "category" else "right")

    def row(name: str, values: dict[str, Any], style: str = "") -> None:
        cells = ("-" if values[m] is None else f"{100 * values[m]:.1f}" for m in (*METRICS, "mad"))
        table.add_row(name, *cells, style=style)

    for name, values in report["classes"].items():
        row(name, values)
    row("mean", report["mean"], "bold")
    if "baseline" in report:
        row("baseline mean", report["baseline"]["mean"], "dim")
    Console().print(table)


def _key(seed: int):
    import jax

    return jax.random.key(seed)


def _names(mine: Any, theirs: Any) -> tuple[str, str]:
    titles = {"dpdiff": "DPDiff-AD", "patch-bank": "Patch bank"}
    return titles[mine.detector.name], "" if theirs is None else titles[theirs.detector.name]


def _skipped(dataset: Any) -> list[str]:
    return [problem.file for problem in dataset.problems if problem.fatal]


def _overrides(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`name=value` pairs, each value as JSON where it is JSON and as text elsewhere."""
    changes = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator:
            raise ConfigError(f"--override {pair}: needs the form NAME=VALUE")
        try:
            changes[name.replace("-", "_")] = json.loads(value)
        except json.JSONDecodeError:
            changes[name.replace("-", "_")] = value
    return changes


def _unique_names(source: Any) -> list[str]:
    """A relative path without extension for every image's pictures, equal names told apart by a number."""
    seen: dict[str, int] = {}
    names = []
    for record in source.records:
        path = Path(record.identity)
        parts = [part for part in path.with_suffix("").parts if part not in (path.anchor, "..")]
        name = "/".join(parts[-3:]) + path.suffix.replace(".", "_")
        seen[name] = seen.get(name, 0) + 1
        names.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return names


def _save_pictures(command: cli.Predict, name: str, source, index: int, prediction, threshold, inputs) -> None:
    from jaxad import viz

    limits = None if threshold is None else threshold.of(command.category)
    if "overlay" in command.save:
        low, high = (
            viz.heat_scale(normal=prediction.map)
            if limits is None
            else (limits.typical, 2 * limits.pixel - limits.typical)
        )
        viz.save_overlay(
            command.out / "overlay" / f"{name}.jpg",
            source[index].image,
            prediction.map,
            low=low,
            high=high,
            threshold=None if limits is None else limits.pixel,
            protect=inputs,
        )
    if "map" in command.save:
        viz.save_map(command.out / "map" / f"{name}.{command.map_format}", prediction.map, protect=inputs)
    if "mask" in command.save and prediction.mask is not None:
        viz.save_mask(command.out / "mask" / f"{name}.png", prediction.mask, protect=inputs)
