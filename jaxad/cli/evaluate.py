"""`jaxad evaluate`: a checkpoint on labeled images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import tyro

from jaxad.cli._command import below_one, no_folder, raise_problems
from jaxad.cli._data import WorkCommand
from jaxad.cli._printing import show
from jaxad.cli._reading import one_of, read
from jaxad.cli._region import judge_in, regions_of
from jaxad.cli._saving import METAVAR, Save
from jaxad.errors import CheckpointError, ConfigError, DamagedError, DataError, JaxadError
from jaxad.io.locks import occupied

if TYPE_CHECKING:
    from jaxad.data import DataSet, ImageSource
    from jaxad.detector import Detector
    from jaxad.inference.checkpoint import Restored
    from jaxad.inference.evaluation import Scored
    from jaxad.inference.sheet import Sheet
    from jaxad.inference.threshold import Threshold
    from jaxad.io.progress import Reporter

EXACT = "exact-256"


@dataclass(frozen=True, kw_only=True)
class Evaluate(WorkCommand):
    """Evaluate a checkpoint on labeled images: report.json and report.html."""

    words: ClassVar[str] = "evaluate"

    checkpoint: Path
    """A workdir (its newest step), one step's folder, or a folder of workdirs such as `jaxad fit --seeds` makes."""
    out: Path
    """Folder of the report; of a folder of workdirs, that of reports in folders of the same names."""
    protocol: str = EXACT
    """How maps, masks and scores are made comparable; results of different protocols are not."""
    resolution: Literal["image", "tile"] = "image"
    """Size at which masks and the maps of a run with tiles are compared: the protocol's for the whole image, or for
    each tile, where small defects have more than a pixel."""
    roi: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Part of the images that is judged, as of `jaxad fit --roi`; what the run recorded if not given."""
    baseline: Path | None = None
    """Checkpoint of a detector to compare with, e.g. of `jaxad fit patch-bank`."""
    threshold: Annotated[float | None, tyro.conf.DisallowNone] = None
    """Image score to decide at in this evaluation, for all categories, in place of the run's threshold; `jaxad
    threshold` changes that of the run."""
    captions: Path | None = None
    """Captions of the test images in the published layout, a folder or file as `jaxad caption --split test` writes it,
    for a vlmdiff that takes captions at test time; those stored with a prepared data set if not given."""
    save: Annotated[tuple[Save, ...], tyro.conf.arg(metavar=METAVAR)] = ()
    """Pictures of every test image, as of `jaxad predict --save`, into the folder `pictures` of --out. The report is
    then without speed."""
    beside: tuple[Path, ...] = ()
    """Further checkpoints, whose maps stand beside those of this one and of the baseline on some images, in the report
    and as sheet.png."""
    images: tuple[str, ...] = ()
    """The images of --beside, by the ends of their paths, such as `bottle/test/cut/003.png`; the first two defective
    ones of each category if not given."""
    override: tuple[str, ...] = ()
    """Inference settings to change, e.g. `start_timestep=200 residual=cosine draws=4`."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it; of vlmdiff also of another network
    that is to compare image and reconstruction; of clipfusion `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
    batch_size: int = 16
    """Images at once."""
    compilation_cache: Literal["on", "off"] = "on"
    """Whether compiled programs are kept in the user's cache folder, so that the next command compiles none; the
    variable JAXAD_COMPILATION_CACHE names another folder, or is `off`."""

    @classmethod
    def parse(cls, words: Sequence[str]) -> Self:
        """As for other commands."""
        from jaxad.metrics.protocols import protocol_names

        return read(cls, words, prog=f"jaxad {cls.words}", types={"protocol": one_of(protocol_names())})

    def run(self) -> None:
        """Evaluates, writes the report, prints its table."""
        from jaxad.inference.steps import runs_below

        alone = self.images and not self.beside
        unread = [f"images = {' '.join(self.images)}: are those of --beside; name runs there"] if alone else []
        raise_problems(below_one(self, "batch_size", "workers") + no_folder(self, "out") + unread)
        runs = runs_below(self.checkpoint)
        if not runs:
            self._evaluate_alone(None)
            return
        # Several runs are judged on the same images, which are looked at once.
        dataset, failed = self._loaded(), []
        for run in runs:
            show(f"{run}:")
            try:
                replace(self, checkpoint=run, out=self.out / run.relative_to(self.checkpoint))._evaluate_alone(dataset)
            except JaxadError as error:
                failed.append(f"{run}: {error}")
        if failed:
            raise CheckpointError("\n  ".join([f"{len(failed)} of {len(runs)} runs could not be evaluated:", *failed]))

    def _loaded(self) -> DataSet:
        """The data, which are shown."""
        from jaxad.io.progress import Reporter

        dataset, reporter = self.load(), Reporter()
        reporter.say(dataset.summary())
        reporter.warn([str(problem) for problem in dataset.problems])
        return dataset

    def _evaluate_alone(self, dataset: DataSet | None) -> None:
        with occupied(self.out, "out"):
            self._evaluate(dataset)

    def _evaluate(self, dataset: DataSet | None) -> None:
        from jaxad.cli._captions import described_test, read_given, unlike_the_threshold
        from jaxad.cli._metrics_table import print_metrics
        from jaxad.cli._overrides import overrides
        from jaxad.cli._threshold_table import print_decisions
        from jaxad.data.layout.results import SHEET
        from jaxad.inference import checkpoint
        from jaxad.inference.evaluation import make_report, score
        from jaxad.inference.figures import figures
        from jaxad.inference.predictor import Predictor
        from jaxad.inference.threshold import overridden
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible
        from jaxad.report.page import write_report
        from jaxad.report.picture_folder import PictureFolder

        regions = regions_of(self.roi)
        reporter = Reporter()
        given = read_given(self.captions, "test")
        changes = overrides(self.override, checkpoint.read_config(self.checkpoint)) if self.override else {}
        restored = checkpoint.restore(self.checkpoint, backbone=self.backbone, pass_over=True, **changes)
        reporter.warn(restored.notes)
        if self.threshold is None:
            threshold = self._valid(restored.threshold, "threshold", reporter)
        else:
            threshold = overridden(restored.threshold, self.threshold, protocol=self.protocol)
        other = None
        if self.baseline is not None:
            other = self._other("baseline", self.baseline, reporter)
        outlines = [_outline("beside", place) for place in self.beside]
        explain = Predictor(restored.detector, self.protocol).check_words(self.save, name="save")
        dataset = self._loaded() if dataset is None else dataset
        known = tuple(dict.fromkeys([*restored.detector.categories, *dataset.categories]))
        reporter.warn(judge_in(restored, regions, known))
        # All compare on the same pixels.
        same_regions = dict(restored.detector.regions)
        if other is not None:
            reporter.warn(judge_in(other, same_regions, [*known, *same_regions], "baseline, "))
        test = _labeled(dataset)
        detectors = [restored.detector, *([other.detector] if other else [])]
        for whose, detector in zip(("", f"--baseline {self.baseline}: "), detectors, strict=False):
            _check_categories(detector, test.categories, reporter, whose)
        for place, outline in zip(self.beside, outlines, strict=True):
            _check_categories(outline, test.categories, reporter, f"--beside {place}: ")
        test, captions = described_test(test, given, [*detectors, *outlines], reporter)

        def fitting(restored: Restored, threshold: Threshold | None, what: str) -> Threshold | None:
            unlike = unlike_the_threshold(restored.meta, restored.detector, captions.get("test_captions", {}))
            if unlike and threshold is not None:
                reporter.warn([f"{what} left out: {unlike}"])
            return None if unlike else threshold

        if self.threshold is None:
            threshold = fitting(restored, threshold, "threshold")

        # Before the rest, so that a run that cannot judge these images is known at once.
        beside = self._beside(detectors, test, reporter) if self.beside else None

        def scored(restored: Restored, what: str, threshold: Threshold | None, **more: Any) -> Scored:
            how: dict[str, Any] = {"protocol": self.protocol, "batch_size": self.batch_size, "workers": self.workers}
            how["resolution"] = self.resolution
            with reporter.images(what, len(test)) as progress:
                return score(restored.detector, test, threshold=threshold, **how, **more, progress=progress)

        if self.save:
            drawn: dict[str, Any] = {"threshold": threshold, "model": restored.identity()}
            with PictureFolder(self.out, test, save=self.save, **drawn) as pictures:
                mine = scored(restored, "evaluate", threshold, explain=explain, passing=pictures.passing)
        else:
            mine = scored(restored, "evaluate", threshold)
        theirs = None
        if other is not None:
            rule = fitting(other, self._valid(other.threshold, "baseline", reporter), "baseline's threshold")
            theirs = scored(other, "baseline", rule)
        recorded = {name: restored.meta[name] for name in ("train", "data", "step")}
        if origin := restored.meta.get("from"):
            recorded["from"] = origin
        report = make_report(
            mine,
            dataset,
            baseline=None if theirs is None else make_report(theirs, dataset),
            provenance={**recorded, "backbone": restored.meta["pretrained"], **captions},
        )
        if training := _on_the_way(restored, reporter):
            report["training"] = training
        if beside is not None:
            beside.save(self.out / SHEET)
        page = write_report(self.out, report, evaluation=figures(mine, baseline=theirs, sheet=beside))
        print_metrics(report)
        if threshold is not None:
            print_decisions(report, threshold)
        show(f"see {visible(page)}")

    def _other(self, flag: str, place: Path, reporter: Reporter) -> Restored:
        """A checkpoint to compare with, that a flag names; its networks are from --backbone if they are the same."""
        from jaxad.inference import checkpoint

        with _named(flag):
            same = checkpoint.pretrained_identity(self.checkpoint) == checkpoint.pretrained_identity(place)
            other = checkpoint.restore(place, backbone=self.backbone if same else None, pass_over=True)
        reporter.warn(other.notes)
        return other

    def _beside(self, detectors: Sequence[Detector], test: ImageSource, reporter: Reporter) -> Sheet:
        """The maps of all runs on the images that are chosen, in the regions of the first."""
        from jaxad.inference.sheet import defective, named, sheet

        def load(place: Path) -> Detector:
            detector = self._other("beside", place, reporter).detector
            detector.regions = detectors[0].regions
            return detector

        chosen = named(test, self.images) if self.images else defective(test)
        every = [*detectors, *(partial(load, place) for place in self.beside)]
        with reporter.images("beside", len(every) * len(chosen), unit="maps") as progress:
            how: dict[str, Any] = {"protocol": self.protocol, "workers": self.workers, "progress": progress}
            return sheet(test, every, chosen, batch_size=self.batch_size, **how)

    def _valid(self, threshold: Threshold | None, what: str, reporter: Reporter) -> Threshold | None:
        """A threshold, left out where it was measured under another protocol."""
        if threshold is None or threshold.protocol == self.protocol:
            return threshold
        whose = "threshold" if what == "threshold" else f"threshold of the {what}"
        reporter.warn([f"{whose} left out: it was measured under {threshold.protocol}, not {self.protocol}"])
        return None


def _on_the_way(restored: Restored, reporter: Reporter) -> dict[str, Any]:
    """What the run has noted of itself while it was trained; nothing of a step that was taken out of its run."""
    from jaxad.inference.steps import FOLDER
    from jaxad.training.log import read_evaluations

    if restored.folder.parent.name != FOLDER:
        return {}
    try:
        return read_evaluations(restored.folder.parents[1], restored.meta["step"])
    except DamagedError as error:
        reporter.warn([f"{error}; the evaluations of the run are left out"])
        return {}


def _labeled(dataset: DataSet) -> ImageSource:
    test = dataset.test.select(i for i, record in enumerate(dataset.test.records) if record.label is not None)
    if not len(test):
        layout = "put normal ones into CATEGORY/test/good and defective ones into CATEGORY/test/DEFECT"
        raise DataError(f"{dataset.name}: no labeled test images; {layout}")
    return test


def _outline(flag: str, place: Path) -> Detector:
    """What can be checked of a checkpoint before it is loaded."""
    from jaxad.inference.checkpoint import read_outline

    with _named(flag):
        return read_outline(place)


@contextmanager
def _named(flag: str) -> Iterator[None]:
    """What is wrong with a checkpoint is said with the flag that gave it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"--{flag}: {error}") from error


def _check_categories(detector: Detector, categories: Sequence[str], reporter: Reporter, whose: str = "") -> None:
    strangers = ", ".join(name for name in categories if name not in detector.categories)
    if strangers and detector.inputs.needs_category:
        known = ", ".join(detector.categories)
        raise ConfigError(
            f"{whose}{detector.name} was not fitted on {strangers}; choose from {known} with --categories"
        )
    if strangers:
        reporter.warn([f"{whose}{detector.name} was not fitted on {strangers}"])
