"""What sweeps of inference settings share: one checkpoint evaluated under each of them, nothing trained.

Not an experiment itself; `dpdiff_figure6.py` and `vlmdiff_sampling.py` use it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxad
from experiments.rows import Mean
from jaxad.inference.evaluation import Scored, score
from jaxad.io.progress import Reporter
from jaxad.metrics import summarize


@dataclass(frozen=True)
class SweepOptions:
    """A checkpoint, and the data whose test images it sees."""

    checkpoint: Path
    """A workdir or one step's folder."""
    data: str
    """Prepared data set, `folder:PATH` of categories in MVTec layout, or `demo`."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""

    def load(self) -> jaxad.data.DataSet:
        """The data set, without hold-out."""
        return jaxad.data.load(self.data, self.data_dir, config=jaxad.DataConfig(holdout=0.0))


def sweep(
    checkpoint: Path,
    test: jaxad.data.ImageSource,
    settings: Iterable[Mapping[str, Any]],
    reporter: Reporter,
    **scoring: Any,
) -> Iterator[tuple[Scored, Mean]]:
    """Evaluates a checkpoint under settings, one after the other.

    Args:
        checkpoint: a workdir or one step's folder.
        test: labeled images.
        settings: fields of the detector's config that differ.
        reporter: shows progress.
        scoring: arguments of `jaxad.inference.evaluation.score`.

    Yields:
        What was scored, and the means of its metrics.
    """
    for setting in settings:
        detector = jaxad.restore(checkpoint, **setting).detector
        with reporter.images(" ".join(map(str, setting.values())), len(test)) as progress:
            scored = score(detector, test, progress=progress, **scoring)
        yield scored, summarize(scored.results())
