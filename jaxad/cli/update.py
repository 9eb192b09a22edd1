"""`jaxad update`: a finished run learns further normal images, and is compared with what it was."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from jaxad.cli._command import below_one, raise_problems
from jaxad.cli._data import DataCommand
from jaxad.cli._printing import show

if TYPE_CHECKING:
    from jaxad.training.update import Updated


@dataclass(frozen=True, kw_only=True)
class Update(DataCommand):
    """Teach a finished run further good images, or false alarms that turned out to be good.

    A patch bank remembers them besides its own; other detectors go on, or begin anew, with the old images and the new
    ones. The threshold is measured again, old and new version are compared, and the new one counts from then on. The
    old one is kept.
    """

    words: ClassVar[str] = "update"

    checkpoint: Path
    """Workdir of the run."""
    data: str = ""
    """The new images: `folder:PATH` of categories in MVTec layout, or what `jaxad prepare` made, of which the normal
    training images are taken; with --category a plain folder of images."""
    category: str = ""
    """Which category the images of a plain folder show."""
    captions: Annotated[Path | None, tyro.conf.DisallowNone] = None
    """Captions of the new images, a folder or file as of `jaxad fit`, for a detector that learns from captions; those
    stored with a prepared data set if not given."""
    as_: Annotated[Literal["good", "false-alarm"], tyro.conf.arg(name="as")] = "good"
    """`good` is a sample of good parts as they come: a tenth of it, at least 5 images, is held out for the threshold.
    `false-alarm` is images chosen because they were rejected: all are learned, none is held out, and the threshold does
    not become lower."""
    test: str | None = None
    """Labeled images on which old and new version are compared, as for `jaxad evaluate --data`; new images among them
    are left out."""
    steps: Annotated[int | None, tyro.conf.DisallowNone] = None
    """Optimizer steps to go on; a tenth of those that were done if not given."""
    dry_run: bool = False
    """Measure all, and replace nothing."""
    revert: bool = False
    """Take the last update back instead."""
    out: Path | None = None
    """JSON file for what is reported."""

    def run(self) -> None:
        """Updates or reverts, and says what has changed."""
        problems = below_one(self, "steps", "workers")
        if self.revert and self.data:
            problems.append(f"data = {self.data}: nothing is learned with --revert; give one of the two")
        if not self.revert and not self.data:
            problems.append("data: no new images given; name them, or take the last update back with --revert")
        if self.category and self.categories:
            problems.append("category, categories: the first is of a plain folder, the others of a data set; give one")
        for field, names in self.names().items():
            if self.category and names:
                problems.append(f"{field} = {' '.join(names)}: is for data sets, not for a plain folder of a category")
        raise_problems(problems)
        if self.revert:
            self._revert()
        else:
            self._update()

    def _revert(self) -> None:
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible
        from jaxad.training.versions import revert

        step, folder = revert(self.checkpoint, Reporter().warn)
        show(f"step {step} counts again; what was taken back is kept as {visible(folder)}")

    def _update(self) -> None:
        from jaxad.config import DataConfig
        from jaxad.data import load
        from jaxad.inference.checkpoint import read_meta
        from jaxad.io.atomic import write_whole
        from jaxad.io.progress import Reporter
        from jaxad.training.update import update
        from jaxad.training.versions import Origin

        test = None
        if self.test is not None:
            known = tuple(read_meta(self.checkpoint)["categories"])
            found = load(self.test, self.data_dir, config=DataConfig(holdout=0.0, on_bad="skip", workers=self.workers))
            records = enumerate(found.test.records)
            test = found.test.select(i for i, one in records if one.label is not None and one.category in known)
        done = update(
            self.checkpoint,
            Origin(
                self.data,
                self.category,
                self.categories or (),
                {field: names for field, names in self.names().items() if names},
                "" if self.captions is None else str(self.captions),
            ),
            kind=self.as_,
            test=test,
            steps=self.steps,
            data_dir=self.data_dir,
            keep=not self.dry_run,
            workers=self.workers,
            reporter=Reporter(),
        )
        if self.out is not None:
            write_whole(self.out, json.dumps(done.to_json(), indent=1))
        self._tell(done)

    def _tell(self, done: Updated) -> None:
        from jaxad.cli._tables import print_table
        from jaxad.io.text import visible

        rows = [(one.what, str(one.images), str(one.old), str(one.new)) for one in done.compared]
        print_table(("errors", "images", "old", "new"), rows, numbers=(False, True, True, True))
        for name, limit in done.threshold.limits.items():
            show(f"threshold{f' of {name}' if name else ''}: {done.before.of(name).image:.6g} -> {limit.image:.6g}")
        if done.step is None:
            show(f"{done.learned} images would be learned; nothing is replaced (--dry-run)")
            return
        back = f"jaxad update --checkpoint {visible(self.checkpoint)} --revert"
        show(f"{done.learned} images learned; step {done.step} counts now, the old one is kept: {back}")
