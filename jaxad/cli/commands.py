"""What the commands of `jaxad.cli` do."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from jaxad.cli import flags as cli
from jaxad.cli.checks import command_line, count_problems, load_data, raise_problems
from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig, to_json
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data.demo.dataset import DemoCounts
    from jaxad.detector import Detector


def run(command: Any) -> None:
    """Runs a parsed command.

    Raises:
        JaxadError: anything a user can mend; printed without a traceback.
    """
    from jaxad.cli import captions as described
    from jaxad.cli import shots
    from jaxad.cli.bench import bench
    from jaxad.cli.first_stage import caption, fit_autoencoder
    from jaxad.cli.fit import fit

    actions = {
        cli.Demo: demo,
        cli.FitDPDiff: fit,
        cli.FitPatchBank: fit,
        cli.FitVLMDiff: partial(fit, own_problems=described.problems, load=described.load),
        cli.FitCLIPFusion: partial(fit, own_problems=shots.problems, load=shots.load),
        cli.FitAutoencoder: fit_autoencoder,
        cli.Caption: caption,
        cli.Evaluate: evaluate,
        cli.Predict: predict,
        cli.Check: check,
        cli.Prepare: prepare,
        cli.Convert: convert,
        cli.Models: models,
        cli.Bench: bench,
    }
    actions[type(command)](command)


def evaluate(command: cli.Evaluate) -> None:
    """`jaxad evaluate`."""
    from jaxad.cli.captions import described_test
    from jaxad.inference import checkpoint
    from jaxad.inference.evaluation import figures, make_report, score
    from jaxad.report.page import write_report

    problems = count_problems(command, "batch_size", "workers")
    if command.out.exists() and not command.out.is_dir():
        problems.append(f"--out {command.out}: is a file; give a folder")
    raise_problems(problems)
    reporter = Reporter()
    restored = checkpoint.restore(command.checkpoint, backbone=command.backbone, **_overrides(command.override))
    reporter.warn(restored.notes)
    other = None
    if command.baseline is not None:
        same_backbone = checkpoint.read_meta(command.baseline).get("backbone") == restored.meta["backbone"]
        other = checkpoint.restore(command.baseline, backbone=command.backbone if same_backbone else None)
    dataset = load_data(command)
    reporter.warn([str(problem) for problem in dataset.problems])
    test = dataset.test.select(i for i, record in enumerate(dataset.test.records) if record.label is not None)
    if not len(test):
        layout = "put normal ones into CATEGORY/test/good and defective ones into CATEGORY/test/DEFECT"
        raise DataError(f"{command.data}: no labeled test images; {layout}")
    detectors = [restored.detector, *([other.detector] if other else [])]
    _check_categories(detectors, test.categories, reporter)
    test, captions = described_test(test, command.captions, detectors, reporter)

    def scored(detector, what: str):
        with reporter.images(what, len(test)) as progress:
            return score(
                detector,
                test,
                protocol=command.protocol,
                batch_size=command.batch_size,
                workers=command.workers,
                progress=progress,
            )

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
        provenance={**{name: restored.meta[name] for name in ("train", "data", "step", "backbone")}, **captions},
    )
    page = write_report(command.out, report, evaluation=figures(mine, threshold=threshold, baseline=theirs))
    print_table(report)
    print(f"see {page}")


def predict(command: cli.Predict) -> None:
    """`jaxad predict`."""
    from jaxad.cli.captions import takes_captions
    from jaxad.data import ImageList
    from jaxad.inference import checkpoint
    from jaxad.inference.prediction import predict_stream
    from jaxad.report.prediction_folder import LINES, PredictionFolder

    problems = count_problems(command, "batch_size", "workers")
    problems += [f"{path}: no such file or folder" for path in command.images if not path.exists()]
    raise_problems(problems)
    reporter = Reporter()
    source = ImageList(list(command.images), command.category)
    restored = checkpoint.restore(command.checkpoint, backbone=command.backbone)
    reporter.warn(restored.notes)
    detector, threshold = restored.detector, restored.threshold
    reporter.warn(detector.notes)
    if takes_captions(detector):
        reporter.warn(['this model takes captions at test time; predict has none, and "" stands for them'])
    known = ", ".join(detector.categories)
    if command.category and command.category not in detector.categories:
        raise ConfigError(f"--category {command.category}: the checkpoint knows {known}")
    if detector.inputs.needs_category and not command.category:
        raise ConfigError(f"--category: this {detector.name} needs it; the checkpoint knows {known}")
    if threshold is None:
        reporter.warn(
            ["the checkpoint has no threshold (run fit with --holdout above 0 to its end): scores only, no decisions"]
        )
    elif not command.category and len(detector.categories) > 1:
        reporter.say(f"one threshold for all categories; --category NAME takes that of one: {known}")
    results = PredictionFolder(
        command.out,
        [record.file for record in source.records],
        save=command.save,
        map_format=command.map_format,
        threshold=threshold,
    )
    flagged = 0
    with results, reporter.images("predict", len(source)) as progress:
        stream = predict_stream(
            detector,
            source,
            threshold=threshold,
            protocol=restored.meta["protocol"],
            batch_size=command.batch_size,
            workers=command.workers,
            progress=progress,
        )
        for image, prediction in stream:
            results.add(image, prediction)
            flagged += bool(prediction.anomalous)
    verdict = (
        f"{len(source)} images scored" if threshold is None else f"{flagged} of {len(source)} images are anomalous"
    )
    print(f"{verdict}; see {command.out / LINES}")


def check(command: cli.Check) -> None:
    """`jaxad check`; fails where a problem would stop a run."""
    from jaxad.io.atomic import write_whole

    raise_problems(count_problems(command, "workers"))
    dataset = load_data(command, verify=True)
    print(dataset.summary())
    for category, counts in dataset.images.items():
        print(f"{category}: " + "; ".join(_listing(counts[name]) for name in ("sizes", "kinds")))
    fatal = [problem for problem in dataset.problems if problem.fatal]
    for problem in dataset.problems:
        print(f"{'problem' if problem.fatal else 'note'}: {problem}")
    if command.out is not None:
        problems = [dataclasses.asdict(problem) for problem in dataset.problems]
        content = {"data": dataset.name, "counts": dataset.counts, "images": dataset.images, "problems": problems}
        write_whole(command.out, json.dumps(content, indent=2) + "\n")
    if fatal:
        number = f"{len(fatal)} problem{'s' if len(fatal) > 1 else ''}"
        raise DataError(f"{number} would stop a run; mend, or leave out with --on-bad skip of fit and evaluate")
    print("nothing that would stop a run")


def prepare(command: cli.Prepare) -> None:
    """`jaxad prepare`."""
    from tfds_builders.prepare import data_name, how_to
    from tfds_builders.prepare import prepare as store

    if not command.source:
        print(how_to(command.name))
        return
    pairs = [word.partition("=") for word in command.options]
    raise_problems([f"--options {name}: needs the form NAME=VALUE" for name, separator, _ in pairs if not separator])
    options = {name: value for name, _, value in pairs}
    found = store(
        command.name,
        command.source,
        data_dir=command.data_dir,
        categories=command.categories,
        size=command.size,
        options=options,
        captions=command.captions,
        workers=command.workers,
        partial=command.partial,
        verify=command.verify,
        beam=command.beam,
    )
    for category in found:
        number = sum(category.counts.values())
        print(f"{category.folder}: {number} images{', kept from before' if category.kept else ''}")
    where = () if command.data_dir is None else ("--data-dir", command.data_dir)
    print(f"next: {command_line('check', '--data', data_name(command.name, command.size, options), *where)}")


def demo(command: cli.Demo, *, counts: DemoCounts | None = None) -> None:
    """`jaxad demo`: DPDiff-AD against the patch bank on the demo data, and how to go on from there.

    Args:
        command: as parsed.
        counts: images of each category; None for the usual ones.
    """
    from jaxad import data
    from jaxad.detectors.dpdiff.detector import DPDiff
    from jaxad.detectors.patch_bank import PatchBank
    from jaxad.features import FeatureCache
    from jaxad.inference.evaluation import figures, make_report, score
    from jaxad.report.page import write_report
    from jaxad.training.trainer import fit as train

    settings = TrainConfig.preset("small", steps=command.steps, seed=command.seed)
    settings.check()
    reporter = Reporter()
    folder = data.make_demo(command.out / "data", counts=counts)
    dataset = dataclasses.replace(data.load(f"folder:{folder}"), name="demo")
    reporter.say(dataset.summary())
    detector = DPDiff.create(DPDiffConfig.preset("small"), key=_key(command.seed))
    with reporter.images("features", len(dataset.train)) as progress:
        features = FeatureCache.build(detector, dataset.train, progress=progress)
    run = train(
        detector,
        dataset.train,
        settings,
        workdir=command.run_folder,
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
    provenance = {"train": to_json(settings)}
    report = make_report(
        mine, dataset, threshold=run.threshold, baseline=make_report(theirs, dataset), provenance=provenance
    )
    evaluation = figures(mine, threshold=run.threshold, baseline=theirs)
    page = write_report(command.out / "report", report, evaluation=evaluation)
    print_table(report)
    judge = ("predict", folder / "brick" / "test", "--checkpoint", run.workdir, "--out", command.out / "predictions")
    own = ("--data", "folder:/my/parts")
    print(
        f"\nThe report: {page}\n"
        f"Judge images: {command_line(*judge, '--category', 'brick')}\n"
        "Your own parts, in folders CATEGORY/train/good and, where you have them, CATEGORY/test/...:\n"
        f"  {command_line('fit', 'dpdiff', *own, '--workdir', 'runs/parts', '--preset', 'small')}\n"
        f"  {command_line('evaluate', '--checkpoint', 'runs/parts', *own, '--out', 'runs/parts-report')}"
    )


def convert(command: cli.Convert) -> None:
    """`jaxad convert`."""
    from jaxad.models.weights import conversion as weights

    manifest = weights.convert(
        command.source,
        command.destination,
        revision=command.revision,
        subfolder=command.subfolder,
        dtype=command.dtype,
        license=command.license,
        overwrite=command.overwrite,
    )
    if manifest["license"] is None:
        Reporter().warn(["the source states no license; --license NAME records it in the manifest"])
    kinds = ", ".join(f"{count} {dtype}" for dtype, count in manifest["dtypes"].items())
    print(f"{command.destination}: {manifest['tensors']} tensors ({kinds}), {manifest['bytes'] / 1e6:.1f} MB")


def models(command: cli.Models) -> None:
    """`jaxad models`."""
    from jaxad.models.catalog import networks

    rows = [(n.name, f"{n.parameters / 1e6:.1f}", n.use, n.source) for n in networks()]
    heads = ("network", "million parameters", "option", "weights")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(4)]
    for name, parameters, use, source in (heads, *rows):
        print(f"{name:{widths[0]}}  {parameters:>{widths[1]}}  {use:{widths[2]}}  {source}")


def print_table(report: dict[str, Any]) -> None:
    """The metrics of every category, their mean and the baseline's mean, in percent on stdout, and notes on them."""
    from jaxad.inference.results import notes_of
    from jaxad.metrics import LABELS

    rows = {**report["classes"], "mean": report["mean"]}
    if "baseline" in report:
        rows["baseline mean"] = report["baseline"]["mean"]
    first = max(map(len, ("category", *rows)))
    print(f"protocol {report['protocol']}, percent; I image, P pixel")
    print(f"{'category':{first}} " + " ".join(f"{label.short:>7}" for label in LABELS.values()))
    for name, values in rows.items():
        cells = ("-" if values[metric] is None else f"{100 * values[metric]:.1f}" for metric in LABELS)
        print(f"{name:{first}} " + " ".join(f"{cell:>7}" for cell in cells))
    for note in notes_of(report):
        print(f"note: {note}")


def _key(seed: int):
    import jax

    return jax.random.key(seed)


def _listing(numbers: Mapping[str, int], most: int = 4) -> str:
    """What there is and how often, the commonest first: "900 x 900 (209), 448 x 448 (3)"."""
    ordered = sorted(numbers, key=lambda name: -numbers[name])
    shown = ", ".join(f"{name} ({numbers[name]})" for name in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")


def _check_categories(detectors: Sequence[Detector], categories: Sequence[str], reporter: Reporter) -> None:
    for detector in detectors:
        strangers = ", ".join(name for name in categories if name not in detector.categories)
        if strangers and detector.inputs.needs_category:
            known = ", ".join(detector.categories)
            raise ConfigError(f"{detector.name} was not fitted on {strangers}; choose from {known} with --categories")
        if strangers:
            reporter.warn([f"{detector.name} was not fitted on {strangers}"])


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
