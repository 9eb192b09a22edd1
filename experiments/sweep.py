"""What sweeps of inference settings share: one checkpoint is evaluated under each of them, and each is kept.

Not an experiment itself; `dpdiff/figure6.py` and `vlmdiff/sampling.py` use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxad
from experiments.records import keep, run_record
from experiments.rows import DataOptions, Mean, slug
from jaxad.inference.evaluation import Scored, score
from jaxad.io.progress import Reporter


@dataclass(frozen=True)
class SweepOptions(DataOptions):
    """A checkpoint, and the data set on whose test images it is evaluated."""

    checkpoint: Path
    """A workdir or one step's folder."""
    data: str
    """Prepared data set, `folder:PATH` of categories in MVTec layout, or `demo`."""
    out: Path | None = None
    """Folder of the records, one for each setting; beside the checkpoint, with `-sweep` behind its name, if not
    given."""

    @property
    def folder(self) -> Path:
        """Folder of the records."""
        return self.out or Path(f"{self.checkpoint}-sweep")


def sweep(
    options: SweepOptions,
    test: jaxad.data.ImageSource,
    settings: Iterable[Mapping[str, Any]],
    reporter: Reporter,
    **scoring: Any,
) -> Iterator[tuple[Scored, Mean]]:
    """Evaluates a checkpoint under one setting after the other.

    Args:
        options: checkpoint, and the folder of the records.
        test: labeled images.
        settings: the fields of the detector's config that each setting changes.
        reporter: shows progress.
        scoring: arguments of `jaxad.inference.evaluation.score`.

    Yields:
        For each setting what was scored, and the means over the categories of its metrics.
    """
    for setting in settings:
        restored = jaxad.restore(options.checkpoint, **setting)
        with reporter.images(" ".join(map(str, setting.values())), len(test)) as progress:
            scored = score(restored.detector, test, progress=progress, **scoring)
        name = " ".join(f"{field} {value}" for field, value in setting.items())
        report = keep(options.folder / slug(name), scored, test, provenance={"row": name, **run_record(restored.meta)})
        yield scored, report["mean"]
