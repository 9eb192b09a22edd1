"""`jaxad threshold`: another decision for a finished run, in seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from jaxad.cli._command import Command, below_one, raise_problems
from jaxad.cli._fitting import HOLDOUT
from jaxad.cli._printing import show
from jaxad.errors import CheckpointError, DataError
from jaxad.io.locks import occupied

if TYPE_CHECKING:
    from jaxad.data import ImageSource
    from jaxad.inference.holdout_scores import HoldoutScores
    from jaxad.inference.rechoose import Decided
    from jaxad.io.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class ChooseThreshold(Command):
    """Show the threshold of a run, or choose it anew from the scores of its hold-out; parameters stay as they are.

    Without a flag besides --checkpoint it only shows. With --data a detector scores other normal images first, which
    then take the place of the hold-out.
    """

    words: ClassVar[str] = "threshold"

    checkpoint: Path
    """A workdir (its newest step) or one step's folder."""
    false_alarm: Annotated[float | None, tyro.conf.DisallowNone] = None
    """Share of normal images allowed above the threshold."""
    value: Annotated[float | None, tyro.conf.DisallowNone] = None
    """The image score to decide at; limits of pixels stay as they are."""
    categories: Annotated[tuple[str, ...] | None, tyro.conf.DisallowNone] = None
    """Categories whose thresholds to choose; all if not given."""
    data: Annotated[str | None, tyro.conf.DisallowNone] = None
    """Normal images that the run was not fitted on: `folder:PATH`, or a prepared data set. Of data that it was fitted
    on, whatever the files are called now, the normal images that it has not learned, and none of the test."""
    data_dir: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """Folder of prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    captions: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """With --data, captions of its normal images as `jaxad fit --captions` takes them, for a vlmdiff that takes
    captions at test time; of the captioner and the prompt that it was fitted with."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images of --data: stop before any work, or leave them out."""
    backbone: Annotated[str | None, tyro.conf.DisallowNone] = None
    """With --data, folder or id to load the backbone from, where the checkpoint does not hold it."""
    batch_size: int = 16
    """Images of --data at once."""
    workers: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Threads that decode images; one per CPU if not given."""
    compilation_cache: Literal["on", "off"] = "on"
    """Whether compiled programs are kept in the user's cache folder."""

    def run(self) -> None:
        """Chooses, keeps, and prints what is in force."""
        import math

        problems = below_one(self, "batch_size", "workers")
        if self.false_alarm is not None and not 0 < self.false_alarm < 1:
            problems.append(f"false_alarm = {self.false_alarm}: must lie between 0 and 1")
        if self.value is not None and not math.isfinite(self.value):
            problems.append(f"value = {self.value}: must be a number")
        if self.false_alarm is not None and self.value is not None:
            problems.append("false_alarm, value: are two ways to choose; give one of them")
        if self.captions is not None and self.data is None:
            problems.append(f"captions = {self.captions}: are of images of --data, which is not given")
        raise_problems(problems)
        with ExitStack() as stack:
            if (workdir := self._workdir()) is not None:
                stack.enter_context(occupied(workdir, "checkpoint"))
            self._choose()

    def _workdir(self) -> Path | None:
        """The folder of the run, for it alone; None for a step's folder that lies elsewhere."""
        folder = self.checkpoint.absolute()
        places = (folder, *folder.parents[1:2])
        return next((place for place in places if (place / "config.json").is_file()), None)

    def _choose(self) -> None:
        from jaxad.cli._threshold_table import print_threshold
        from jaxad.inference.rechoose import check_categories, no_scores, read_decided, rechoose
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible

        reporter = Reporter()
        decided = read_decided(self.checkpoint)
        reporter.warn(decided.notes)
        if self.false_alarm is None and self.value is None and self.data is None:
            if decided.holdout is None:
                reporter.warn([no_scores(self.checkpoint, decided)])
            if decided.threshold is not None:
                print_threshold(decided.threshold)
            return
        if self.categories is not None:
            check_categories(self.categories, decided.threshold)
        holdout = None if self.data is None else self._measured(decided, reporter)
        how = {"false_alarm": self.false_alarm, "value": self.value, "categories": self.categories}
        threshold = rechoose(self.checkpoint, holdout=holdout, warn=reporter.warn, **how)
        reporter.warn(threshold.warnings)
        print_threshold(threshold, before=decided.threshold)
        show(f"kept in {visible(decided.step.folder)}")

    def _measured(self, decided: Decided, reporter: Reporter) -> HoldoutScores:
        from jaxad.cli._captions import described_normal, read_given
        from jaxad.inference import checkpoint
        from jaxad.inference.holdout_scores import joined, measure_holdout

        # What files can be wrong about is found before networks are loaded.
        config, meta = checkpoint.read_config(self.checkpoint), decided.step.meta
        captions = read_given(self.captions, "train", config)
        parts = self._normal(meta, meta["categories"], reporter)
        parts = described_normal(parts, captions, meta, config, reporter)
        restored = checkpoint.restore(self.checkpoint, backbone=self.backbone)
        if restored.folder != decided.step.folder:
            raise CheckpointError(f"{decided.step.folder}: is damaged; run the same `jaxad fit` again to mend the run")
        reporter.warn(restored.notes)
        counts = Counter(record.category for part in parts for record in part.records)
        reporter.say("normal images: " + ", ".join(f"{name} {number}" for name, number in counts.items()))
        with reporter.images("threshold", sum(map(len, parts))) as progress:
            how = {"batch_size": self.batch_size, "workers": self.workers, "progress": progress}
            return joined(
                [measure_holdout(restored.detector, part, protocol=restored.meta["protocol"], **how) for part in parts],
                self.data or "",
            )

    def _normal(self, meta: dict[str, Any], known: Sequence[str], reporter: Reporter) -> list[ImageSource]:
        """The normal images of `data` that the run has not learned; of data that it was fitted on none of the test."""
        from jaxad import data
        from jaxad.config import DataConfig
        from jaxad.inference.meta import learned_digests
        from jaxad.training.versions import without

        config = DataConfig(None, meta["data"].get("holdout", HOLDOUT), self.on_bad, self.workers)
        dataset = data.load(self.data or "", self.data_dir, config=config)
        reporter.warn([str(problem) for problem in dataset.problems if problem.kind != "small hold-out"])
        parts = (dataset.holdout, dataset.train, dataset.test)
        holdout, train, test = (
            part.select(i for i, record in enumerate(part.records) if record.category in known) for part in parts
        )
        learned = set().union(*learned_digests(meta))
        parts = [without(part, learned, workers=self.workers) for part in (holdout, train)]
        if count := len(holdout) + len(train) - sum(map(len, parts)):
            reporter.say(f"{dataset.name}: the run was fitted on {count} of its images; the others are taken")
        else:
            parts.append(test.select(i for i, record in enumerate(test.records) if record.label == 0))
        if not (chosen := [part for part in parts if len(part)]):
            raise DataError(
                f"data = {self.data}: no normal images of {', '.join(known)} that the run was not fitted on"
            )
        return chosen
