"""What the tables of DPDiff-AD share: each row is a run of its own, and all are evaluated alike.

Not an experiment itself; `table5.py` and its neighbors call `Table.row` for each of their rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax

import jaxad
from experiments.records import Printed, keep, run_record
from experiments.rows import DataOptions, Lines, Mean, slug
from jaxad.features import FeatureCache
from jaxad.inference.checkpoint import read_meta
from jaxad.inference.evaluation import score
from jaxad.io.progress import Reporter
from jaxad.metrics import METRICS
from jaxad.models.backbone import load_backbone
from jaxad.nn.precision import compute_dtype

PROTOCOL = "exact-256"
"""The paper names no protocol; all thresholds, at the size that the field compares at."""
REPORTS = "reports"
"""Folder of the records; those under another protocol lie in one of their own."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(DataOptions):
    """Preset and length of the runs of a table."""

    out: Path
    """Folder of the runs."""
    preset: Literal["paper", "small"] = "paper"
    """Defaults of detector and training."""
    steps: int | None = None
    """Optimizer steps of each run; the preset's if not given."""
    backbone: str | None = None
    """Folder or id of the backbone; the preset's if not given."""
    image_size: int | None = None
    """Side of the square input in pixels; the preset's if not given."""
    holdout: float = 0.0
    """Share of normal images kept out of training; 0 in the paper."""
    protocol: Literal["exact-256", "dpdiff"] = PROTOCOL
    """Evaluation: maps smoothed and compared at 256 px, as the field does, or not smoothed at 448 px, as Eq. 24 is
    written. Runs are the same for both, so that the second only evaluates."""
    seeds: tuple[int, ...] = (0,)
    """Each row is trained once for each of them; more than one gives mean and standard deviation."""


@dataclass(frozen=True, kw_only=True)
class RowOptions(RunOptions):
    """Data, preset and length of the runs of a table."""

    data: str
    """`folder:PATH` of categories in MVTec layout, a prepared data set, or `demo`."""


class Table:
    """Trains and evaluates rows and prints ours beside the published ones.

    Columns are `jaxad.metrics.METRICS`, macro means over the categories; published values stand in this order. Records
    lie in the folder `reports` of --out, of another protocol in `reports-PROTOCOL`.

    Args:
        options: of the command line.
        published: percent by row.
        source: table that they are from.
        data: data set that they are of.

    Attributes:
        config, train: settings of a row that changes nothing.
        rows: mean over the seeds of each metric, 0..1, by row.
    """

    def __init__(
        self, options: RowOptions, published: Mapping[str, Sequence[float]], source: str, data: str = "mvtec_ad"
    ):
        given = {"backbone": options.backbone, "image_size": options.image_size}
        changes = {name: value for name, value in given.items() if value is not None}
        self.config = jaxad.DPDiffConfig.preset(options.preset, **changes)
        self.train = jaxad.TrainConfig.preset(options.preset)
        self.train = replace(self.train, steps=options.steps or self.train.steps)
        self.rows: dict[str, Mean] = {}
        self._options = options
        self._dataset = options.load(options.data, holdout=options.holdout)
        self._reporter = Reporter()
        self._reports = REPORTS if options.protocol == PROTOCOL else f"{REPORTS}-{options.protocol}"
        self._backbone: tuple[Any, Any] = (None, None)
        self._features: tuple[Any, dict[str, FeatureCache]] = (None, {})
        self._printed = Printed(f"DPDiff-AD, {source}", options.protocol, METRICS, published, data)
        self._lines = Lines(self._printed, width=28)

    def row(self, name: str, *, train: dict | None = None, **changes: Any) -> None:
        """Trains (or resumes) one row for each seed, evaluates and prints it.

        Args:
            name: of the row, as in the published table.
            train: fields of TrainConfig that differ.
            changes: fields of DPDiffConfig that differ.
        """
        folder = self._options.out / slug(name)
        config = replace(self.config, **changes)
        reports = []
        for seed in self._options.seeds:
            training = replace(self.train, **(train or {}), seed=seed)
            detector = jaxad.DPDiff.create(config, key=jax.random.key(seed), backbone=self._loaded(config))
            features = self._encoded(detector)
            workdir = folder / f"seed-{seed}"
            trained = jaxad.fit(
                detector,
                self._dataset.train,
                training,
                workdir=workdir,
                provenance={"preset": self._options.preset, "holdout": self._options.holdout},
                features=features["train"],
                reporter=self._reporter,
            )
            with self._reporter.images(name, len(self._dataset.test)) as progress:
                scored = score(
                    trained.model,
                    self._dataset.test,
                    protocol=self._options.protocol,
                    features=features["test"],
                    progress=progress,
                )
            provenance = {"row": name, "preset": self._options.preset, **run_record(read_meta(workdir))}
            kept = self._options.out / self._reports / slug(name) / f"seed-{seed}"
            published = self._printed.row(name)
            reports.append(keep(kept, scored, self._dataset, published=published, provenance=provenance))
        self.rows[name] = self._lines.show(name, [report["mean"] for report in reports], reports=reports)

    def _loaded(self, config: jaxad.DPDiffConfig):
        wanted = (config.backbone, compute_dtype(config.precision))
        if self._backbone[0] != wanted:
            self._backbone = (wanted, load_backbone(wanted[0], dtype=wanted[1]))
        return self._backbone[1]

    def _encoded(self, detector: jaxad.Detector) -> dict[str, FeatureCache]:
        """Features of both parts; rows that share a backbone, its blocks and the image size share them."""
        wanted = (detector.inputs.identity, tuple(detector.inputs.views.items()))
        if self._features[0] != wanted:
            caches = {}
            for part, source in (("train", self._dataset.train), ("test", self._dataset.test)):
                folder = self._options.out / "features" / part
                with self._reporter.images(f"{part} features", len(source)) as progress:
                    caches[part] = FeatureCache.build(detector, source, folder=folder, progress=progress)
            self._features = (wanted, caches)
        return self._features[1]
