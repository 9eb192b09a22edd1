"""What sweeps of inference settings share: one checkpoint is evaluated under each of them, nothing is trained.

Not an experiment itself; `dpdiff/figure6.py` and `vlmdiff/sampling.py` use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxad
from experiments.rows import DataOptions, Mean
from jaxad.inference.evaluation import Scored, score
from jaxad.io.progress import Reporter
from jaxad.metrics import summarize


@dataclass(frozen=True)
class SweepOptions(DataOptions):
    """A checkpoint, and the data set on whose test images it is evaluated."""

    checkpoint: Path
    """A workdir or one step's folder."""
    data: str
    """Prepared data set, `folder:PATH` of categories in MVTec layout, or `demo`."""


def sweep(
    checkpoint: Path,
    test: jaxad.data.ImageSource,
    settings: Iterable[Mapping[str, Any]],
    reporter: Reporter,
    **scoring: Any,
) -> Iterator[tuple[Scored, Mean]]:
    """Evaluates a checkpoint under one setting after the other.

    Args:
        checkpoint: a workdir or one step's folder.
        test: labeled images.
        settings: the fields of the detector's config that each setting changes.
        reporter: shows progress.
        scoring: arguments of `jaxad.inference.evaluation.score`.

    Yields:
        For each setting what was scored, and the means over the categories of its metrics.
    """
    for setting in settings:
        detector = jaxad.restore(checkpoint, **setting).detector
        with reporter.images(" ".join(map(str, setting.values())), len(test)) as progress:
            scored = score(detector, test, progress=progress, **scoring)
        yield scored, summarize(scored.results())
