"""`update`: a finished run learns further normal images, is measured against what it was, and becomes a new version."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxad import parallel
from jaxad.config import TrainConfig, from_json
from jaxad.config.training import up_to_date
from jaxad.data import JoinedSource
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, other_kind
from jaxad.data.fit_options import ReferenceOptions
from jaxad.data.holdout import digests
from jaxad.detector import Detector, Trainable
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.features import extras_of
from jaxad.inference.checkpoint import restore
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.inference.holdout_scores import HoldoutScores, joined, measure_holdout
from jaxad.inference.meta import digests_text, learned_digests
from jaxad.inference.predictor import Predictor
from jaxad.inference.rechoose import Decided, asked_rate, chosen_like, read_decided, renew_card
from jaxad.inference.steps import FOLDER, TRAINING, set_aside_damaged
from jaxad.inference.threshold import Threshold
from jaxad.io.progress import Reporter
from jaxad.training.compared import Compared, above, compared
from jaxad.training.run_folder import Place, content_hash, in_use
from jaxad.training.trainer import train
from jaxad.training.versions import Origin, load_again, load_normal, origins, publish, scratch, without
from jaxad.types import Source

Kind = Literal["good", "false-alarm"]
HOLDOUT = 0.1
_KEPT = ("train", "data", "protocol", "false_alarm", "weights", "from", "micro_batch")


@dataclass(frozen=True)
class Updated:
    """What an update has done.

    Attributes:
        step: number of the new version, which counts from now on; None where nothing was replaced.
        learned: images that were added.
        threshold: of the new version.
        before: threshold of the old one.
        compared: the old against the new version.
    """

    step: int | None
    learned: int
    threshold: Threshold
    before: Threshold
    compared: tuple[Compared, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return dataclasses.asdict(self)


def update(
    workdir: Path | str,
    new: Origin,
    *,
    kind: Kind = "good",
    test: Source | None = None,
    steps: int | None = None,
    data_dir: Path | None = None,
    keep: bool = True,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Updated:
    """Adds normal images to a finished run, measures its threshold again, and makes the result its newest step.

    A bank gets the patches of the new images besides its own. Other detectors that remember do so anew, from the old
    and the new images; those that train go on from their last step with both. The old step stays as it is
    (`jaxad.training.versions.revert`).

    Args:
        workdir: of the run.
        new: where the new images are; its `sha256` is not looked at. Those that the run knows already are left out.
        kind: "good" is a sample of normal images, of which a share is held out for the threshold. "false-alarm" is
            images chosen because they were rejected: all are learned, because a hold-out of such is none of parts as
            they come, and no limit becomes lower than it was.
        test: labeled images on which both versions are compared; new ones among them are left out.
        steps: optimizer steps to go on; None for a tenth of those that were done.
        data_dir: folder of prepared data sets.
        keep: whether to replace the old version; else all is only measured.
        workers: threads that decode images.
        reporter: shows progress; None is silent.

    Raises:
        CheckpointError: no finished run with a threshold, or one that lacks what is needed to go on.
        DataError: nothing new, or old images that are needed and are gone.
        ConfigError: the run is in use, or impossible settings.
    """
    run = Place(Path(workdir), parallel.make_mesh(), workers, reporter or Reporter(quiet=True))
    if steps is not None and steps < 1:
        raise ConfigError(f"steps = {steps}: must be at least 1")
    if not (run.workdir / FOLDER).is_dir():
        raise CheckpointError(f"{workdir}: is no run; give the workdir of a `jaxad fit`")
    with in_use(run.workdir), scratch(run.workdir) as folder:
        if keep:
            # The new step may have the number of a damaged one.
            damaged: list[str] = []
            elsewhere = CheckpointError(f"{run.workdir}: the main process cannot use it, and says why")
            parallel.by_main(lambda: damaged.extend(set_aside_damaged(run.workdir / FOLDER)), elsewhere)
            run.reporter.warn(damaged)
        return _Update(run, folder, new, kind, data_dir).run(test, steps, keep)


class _Update:
    """One update, in a run that is this process's alone."""

    def __init__(self, run: Place, folder: Path, new: Origin, kind: Kind, data_dir: Path | None):
        self.place, self.scratch, self.kind = run, folder, kind
        self.decided: Decided = read_decided(run.workdir)
        run.reporter.warn(self.decided.notes)
        if self.decided.threshold is None or self.decided.holdout is None:
            raise CheckpointError(
                f"{run.workdir}: has no threshold, or none whose hold-out scores were kept; run `jaxad threshold "
                f"--checkpoint {run.workdir} --data SRC` once"
            )
        step = self.decided.step
        self.detector: Any = restore(step.folder).detector
        if issubclass(self.detector.fit_options or object, ReferenceOptions):
            raise ConfigError(f"{run.workdir}: was fitted on chosen references; fit anew with more of them")
        if self.detector.tiling is not None:
            raise ConfigError(
                f"{run.workdir}: was fitted on tiles, which an update cannot add to; fit anew with --tile"
            )
        if isinstance(self.detector, Trainable) and not (step.folder / TRAINING).is_dir():
            raise CheckpointError(f"{step.folder}: holds no optimizer state to go on from, as in a bundle")
        self.origins, self.digests = origins(step), learned_digests(step.meta)
        if len(self.digests) != len(self.origins):
            raise CheckpointError(f"{step.folder}: does not record which images were learned; fit anew")
        self.origin = dataclasses.replace(new, holdout=HOLDOUT if kind == "good" else 0.0)
        self._check_captions()
        self.old = self._old(data_dir)
        self.learned, self.held = self._new(data_dir)

    def run(self, test: Source | None, steps: int | None, keep: bool) -> Updated:
        """Scores of the old version, then the new version, then its scores."""
        place, before, rule = self.place, self.detector, self.decided.threshold
        assert rule is not None
        sets = self._sets(test)
        old = self._scores(before, sets, rule.protocol)
        steps = self._steps(steps)
        number = self.decided.step.number + (steps or 1)
        with CheckpointWriter(self.scratch) as writer:
            after = self._learn(writer, number, steps)
            holdout = self._holdout(after, rule.protocol)
            threshold = chosen_like(rule, holdout)
            if self.kind == "false-alarm":
                threshold = _not_below(threshold, rule, holdout)
            writer.complete(number, threshold, holdout, asked_rate(self.decided.step))
        place.reporter.warn(threshold.warnings)
        new = self._scores(after, sets, rule.protocol)
        rows = [self._known(holdout, rule, threshold)]
        for name, source in sets.items():
            rows += compared(name, source, (old[name], rule), (new[name], threshold))
        if keep:
            parallel.by_main(lambda: self._publish(number), CheckpointError(f"{place.workdir}"))
        return Updated(number if keep else None, len(self.learned), threshold, rule, tuple(rows))

    def _publish(self, number: int) -> None:
        """Makes the new version the one that counts, of which the run's card then tells."""
        publish(self.scratch, number, self.place.workdir)
        renew_card(self.place.workdir, self.place.reporter.warn)

    @property
    def _takes_captions(self) -> bool:
        inputs = self.detector.inputs
        return inputs.tokenize is not None and inputs.captions != "never"

    def _check_captions(self) -> None:
        """Raises ConfigError for captions that would go unused."""
        given = f"captions = {self.origin.captions}"
        if self.origin.captions and not self._takes_captions:
            raise ConfigError(f"{given}: {self.detector.name} learns from none here; leave them out")
        if self.origin.captions and self.origin.category:
            raise ConfigError(f"{given}: are of a data set (folder:PATH), and images of a plain folder have none")

    def _old(self, data_dir: Path | None) -> tuple[Any, Any] | None:
        """Old training and hold-out images; None where they are gone and can be done without."""
        kept, workers = self.decided.holdout, self.place.workers
        assert kept is not None
        held = {bytes.fromhex(digest) for digest in kept.digests}
        parts: list[tuple[Any, Any]] = []
        try:
            for one, learned in zip(self.origins, self.digests, strict=True):
                part = load_again(one, learned, held, data_dir, workers)
                parts.append((self._at_depths(part[0]), self._at_depths(part[1])))
                held -= set(digests(part[1], workers=workers))
        except DataError as error:
            if self.detector.extends:
                why = "the threshold is measured with the kept scores of its hold-out, which a larger bank only lowers"
                self.place.reporter.warn([f"{error}; {why}"])
                return None
            raise DataError(
                f"{error}\n  {self.detector.name} needs its old images besides the new ones: put them back, or fit anew"
            ) from error
        if held and not self.detector.extends:
            first = self.origins[0].source
            raise DataError(
                f"{len(held)} of the {len(kept)} images that the threshold was chosen on ({kept.source}) are not among "
                f"what {self.place.workdir} was fitted on, and old scores say nothing of a new version: put them back, "
                f"or run `jaxad threshold --checkpoint {shlex.quote(str(self.place.workdir))} --data "
                f"{shlex.quote(first)}` first"
            )
        return JoinedSource([train for train, _ in parts]), JoinedSource([found for _, found in parts])

    def _new(self, data_dir: Path | None) -> tuple[Any, Any]:
        """New images to learn and to hold out, without those that the run knows."""
        workers, reporter = self.place.workers, self.place.reporter
        learned, held = map(self._at_depths, load_normal(self.origin, data_dir, workers))
        assert self.decided.holdout is not None
        known = set().union(*self.digests, map(bytes.fromhex, self.decided.holdout.digests))
        fresh = without(learned, known, workers=workers)
        kept = without(held, known.union(digests(fresh, workers=workers)), workers=workers)
        if copies := len(learned) + len(held) - len(fresh) - len(kept):
            reporter.say(f"{copies} images are known already, and left out")
        if not len(fresh):
            raise DataError(f"{self.origin.source}: no normal images that the run does not know")
        if self._takes_captions:
            captions = Captions.load(self.origin.captions, "train") if self.origin.captions else None
            record = caption_record(fresh, captions, "train", reporter, besides=(*learned.records, *held.records))
            measured = self.decided.step.meta["data"].get("captions")
            always = self.detector.inputs.captions == "always"
            if always and measured is not None and (unlike := other_kind(measured, record)):
                raise ConfigError(f"captions: the threshold does not hold, {unlike}; give --captions of that kind")
        return fresh, kept

    def _at_depths(self, source: Any) -> Any:
        """The images, those of 16 bits read as the detector's own were."""
        return source.at_depths({**source.depths, **dict(self.detector.depths)})

    def _steps(self, steps: int | None) -> int | None:
        """Optimizer steps to go on; None for a detector that does not train."""
        if not isinstance(self.detector, Trainable) or not self.detector.trains:
            return None
        return steps or max(1, self.decided.step.number // 10)

    def _sets(self, test: Source | None) -> dict[str, Any]:
        """What both versions are compared on besides the old hold-out, by name."""
        sets = {"new images, learned": self.learned, "new images, held out": self.held}
        if test is not None:
            workers = self.place.workers
            new = (digests(source, workers=workers) for source in (self.learned, self.held))
            kept = self.decided.holdout
            held = () if kept is None else map(bytes.fromhex, kept.digests)
            rest = without(test, set().union(held, *self.digests, *new), workers=workers)
            if copies := len(test) - len(rest):
                self.place.reporter.say(f"{copies} of {len(test)} test images are known, and left out")
            sets["test"] = rest
        if self.detector.inputs.needs_category:
            # What the old version has no category for it cannot judge.
            sets = {name: _of_categories(source, self.detector.categories) for name, source in sets.items()}
        return {name: source for name, source in sets.items() if len(source)}

    def _learn(self, writer: CheckpointWriter, number: int, steps: int | None) -> Detector:
        """The new version, saved without its threshold."""
        detector: Any = self.detector
        reporter = self.place.reporter
        if steps is not None:
            assert self.old is not None
            return self._train(writer, number)
        source = self.learned if detector.extends else JoinedSource([self.old[0], self.learned])  # type: ignore[index]
        with reporter.images("remember", len(source)) as progress:
            (detector.extend if detector.extends else detector.remember)(source, progress=progress)
        writer.save(number, detector, meta=self._meta())
        return detector

    def _train(self, writer: CheckpointWriter, number: int) -> Detector:
        """Goes on from the last step, of which the scratch folder has the same files."""
        step = self.decided.step
        shutil.copytree(step.folder, self.scratch / FOLDER / str(step.number), copy_function=_linked)
        # The schedule goes to the new last step; what watched the run does not watch the scratch folder.
        changes: dict[str, Any] = {"steps": number, "schedule_steps": None, "loggers": (), "eval_every": None}
        recorded = up_to_date(step.meta["train"])
        config: TrainConfig = dataclasses.replace(from_json(TrainConfig, recorded), **changes)
        source = JoinedSource([self.old[0], self.learned])  # type: ignore[index]
        meta = {**self._meta(), "train": {**recorded, "steps": number}}
        run = dataclasses.replace(self.place, workdir=self.scratch, mesh=parallel.make_mesh(config.fsdp))
        # `train` frees the devices of the arrays of what it is given.
        return train(restore(step.folder).detector, source, config, run, writer, meta, resumable=False)[0]

    def _meta(self) -> dict[str, Any]:
        """What to record with the new step."""
        step = self.decided.step
        meta = {name: step.meta[name] for name in _KEPT if name in step.meta}
        sha256 = content_hash(self.learned, self._extras(self.learned), workers=self.place.workers)
        categories = tuple(self.learned.categories)
        known = [*self.origins, dataclasses.replace(self.origin, sha256=sha256, categories=categories)]
        chain = hashlib.sha256("".join(one.sha256 for one in known).encode()).hexdigest()
        images = meta["data"].get("images", 0) + len(self.learned)
        records = [one.to_json() for one in known]
        meta["data"] = {**meta["data"], "images": images, "sha256": {"images": chain}, "origins": records}
        learned = [*step.meta["learned"], digests_text(digests(self.learned, workers=self.place.workers))]
        update = {"of": step.number, "kind": self.kind, "images": len(self.learned)}
        return {**meta, "learned": learned, "update": update}

    def _holdout(self, detector: Detector, protocol: str) -> HoldoutScores:
        """What the new version makes of the old hold-out and the new one; of old images that are gone what is kept."""
        kept, workers = self.decided.holdout, self.place.workers
        assert kept is not None
        source = JoinedSource([*([] if self.old is None else [self.old[1]]), self.held])
        again = {digest.hex() for digest in digests(source, workers=workers)}
        found = [kept.select(digest not in again for digest in kept.digests)]
        if len(source):
            with self.place.reporter.images("threshold", len(source)) as progress:
                how: Mapping[str, Any] = {"workers": workers, "progress": progress}
                found.append(measure_holdout(detector, source, protocol=protocol, **how))
        return joined([part for part in found if len(part)], f"{kept.source} + {self.origin.source}")

    def _known(self, holdout: HoldoutScores, before: Threshold, after: Threshold) -> Compared:
        """The old hold-out: scores that were kept, and those of the new version."""
        old = self.decided.holdout
        assert old is not None
        now = dict(zip(holdout.digests, holdout.scores, strict=True))
        scores = np.array([now.get(digest, score) for digest, score in zip(old.digests, old.scores, strict=True)])
        errors = (above(found, old.categories, rule).sum() for found, rule in ((old.scores, before), (scores, after)))
        return Compared("old hold-out: false alarms", len(old), *map(int, errors))

    def _scores(self, detector: Detector, sets: Mapping[str, Any], protocol: str) -> dict[str, np.ndarray]:
        """The image scores [n] of each set."""
        predictor, scores = Predictor(detector, protocol), {}
        for name, source in sets.items():
            with self.place.reporter.images(name, len(source)) as progress:
                outputs = predictor.stream(source, workers=self.place.workers, progress=progress)
                scores[name] = np.concatenate([output.scores for output in outputs]).astype(np.float64)
        return scores

    def _extras(self, source: Any) -> Mapping[str, np.ndarray]:
        return extras_of(self.detector, source.records, training=True)


def _not_below(threshold: Threshold, before: Threshold, holdout: HoldoutScores) -> Threshold:
    """The rule with no limit below what it was: at the same rate, a limit that follows lower scores undoes the gain."""
    limits = {}
    for name, limit in threshold.limits.items():
        old = before.of(name)
        image = max(limit.image, old.image)
        members = np.array([not name or category == name for category in holdout.categories])
        above = int((holdout.scores[members] > image).sum())
        limits[name] = dataclasses.replace(limit, image=image, pixel=max(limit.pixel, old.pixel), above=above)
    return dataclasses.replace(threshold, limits=limits)


def _linked(source: str, target: str) -> None:
    """The same file under another name, or where the disk has no such a copy of it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _of_categories(source: Any, categories: tuple[str, ...]) -> Any:
    return source.select(i for i, record in enumerate(source.records) if record.category in categories)
