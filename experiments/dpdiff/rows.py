"""What the tables of DPDiff-AD share: each row is a run of its own, and all are evaluated alike.

Not an experiment itself; `table5.py` and its neighbors call `Table.row` for each of their rows.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import jaxad
from experiments.records import Printed, keep, run_record
from experiments.rows import DataOptions, Lines, Mean, slug
from jaxad import metrics
from jaxad.features import FeatureCache
from jaxad.inference.checkpoint import read_meta
from jaxad.inference.steps import is_run
from jaxad.inference.together import score_under
from jaxad.io.progress import Reporter
from jaxad.metrics import METRICS
from jaxad.models.backbone import load_backbone
from jaxad.nn.precision import compute_dtype
from jaxad.types import Features

PROTOCOL = "exact-256"
"""The paper names no protocol; all thresholds, at the size that the field compares at."""
REPORTS = "reports"
"""Folder of the records; those under another protocol lie in one of their own."""
FEATURES = "features"
"""Folder of cached features, which goes when a table is finished."""


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
    protocols: tuple[str, ...] = (PROTOCOL,)
    """Evaluation protocols, all out of one pass: `exact-256` smooths and compares maps at 256 px, as the field does,
    `dpdiff` has them at 448 px and not smoothed, as Eq. 24 is written, `ader` is that of the published baselines. Runs
    are the same for all, so that further protocols only evaluate."""
    cache: Literal["disk", "off"] = "disk"
    """Where features of the images are kept until the table is finished: below --out (1.6 MB for an image of 448 px),
    or nowhere, so that they are computed whenever they are needed."""
    seeds: tuple[int, ...] = (0,)
    """Each row is trained once for each of them; more than one gives mean and standard deviation."""


@dataclass(frozen=True, kw_only=True)
class RowOptions(RunOptions):
    """Data, preset and length of the runs of a table."""

    data: str
    """`folder:PATH` of categories in MVTec layout, a prepared data set, or `demo`."""


class Table:
    """Trains and evaluates rows and prints ours beside the published ones; a context that cleans up behind itself.

    Columns are `jaxad.metrics.METRICS`, macro means over the categories; published values stand in this order. Records
    lie in the folder `reports` of --out, of another protocol in `reports-PROTOCOL`.

    Features of training images are kept on disk while the table is made. Those of test images are kept too where rows
    share them; else each row looks at the images once, and memory and disk do not grow with them.

    Args:
        options: of the command line.
        published: percent by row.
        source: table that they are from.
        data: data set that they are of.
        shares: whether the rows see images alike: one backbone, its blocks, and size.

    Attributes:
        config, train: settings of a row that changes nothing.
        rows: mean over the seeds of each metric, 0..1, by row, under the first protocol.
        reports: contents of report.json by row, one for each seed, under the first protocol.
    """

    def __init__(
        self,
        options: RowOptions,
        published: Mapping[str, Sequence[float]],
        source: str,
        data: str = "mvtec_ad",
        *,
        shares: bool = False,
    ):
        for name in options.protocols:
            metrics.protocol(name)
        given = {"backbone": options.backbone, "image_size": options.image_size}
        changes = {name: value for name, value in given.items() if value is not None}
        self.config = jaxad.DPDiffConfig.preset(options.preset, **changes)
        self.train = jaxad.TrainConfig.preset(options.preset)
        self.train = replace(self.train, steps=options.steps or self.train.steps)
        if options.cache == "off":
            self.train = replace(self.train, cache="off")
        self.rows: dict[str, Mean] = {}
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self._options, self._kept = options, {"train", "test"} if shares else {"train"}
        self._dataset = options.load(options.data, holdout=options.holdout)
        self._reporter = Reporter()
        self._backbone: tuple[Any, Any] = (None, None)
        self._caches: dict[str, tuple[Any, FeatureCache]] = {}
        tables = {name: Printed(f"DPDiff-AD, {source}", name, METRICS, published, data) for name in options.protocols}
        self._printed = tables
        self._lines = Lines(tables[options.protocols[0]], width=28)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Removes cached features, unless the table is to go on after an error."""
        self._caches.clear()
        if kind is None:
            shutil.rmtree(self._options.out / FEATURES, ignore_errors=True)

    def row(
        self,
        name: str,
        *,
        train: dict | None = None,
        like: str | None = None,
        judged: dict | None = None,
        **changes: Any,
    ) -> list[jaxad.Detector]:
        """Trains (or resumes) one row for each seed, evaluates and prints it.

        Args:
            name: of the row, as in the published table.
            train: fields of TrainConfig that differ.
            like: an earlier row, whose runs are evaluated in place of own ones.
            judged: fields of DPDiffConfig that differ once training is over.
            changes: fields of DPDiffConfig that differ.

        Returns:
            The detectors as they were evaluated, one for each seed.
        """
        options, test = self._options, self._dataset.test
        config, judged = replace(self.config, **changes), judged or {}
        reports: dict[str, list[dict[str, Any]]] = {protocol: [] for protocol in options.protocols}
        detectors: list[jaxad.Detector] = []
        for seed in options.seeds:
            workdir = options.out / slug(like or name) / f"seed-{seed}"
            if like is None:
                detector = self._trained(config, replace(self.train, **(train or {}), seed=seed), workdir)
            if like is not None or judged:
                detector = jaxad.restore(workdir, **judged).detector
            detectors.append(detector)
            features = self._features(detector, "test")
            with self._reporter.images(name, len(test)) as progress:
                scored = score_under(detector, test, options.protocols, features=features, progress=progress)
            provenance = {"row": name, "preset": options.preset, **run_record(read_meta(workdir))}
            for protocol, found in scored.items():
                folder = REPORTS if protocol == PROTOCOL else f"{REPORTS}-{protocol}"
                kept = options.out / folder / slug(name) / f"seed-{seed}"
                published = self._printed[protocol].row(name)
                reports[protocol].append(keep(kept, found, self._dataset, published=published, provenance=provenance))
        self.reports[name] = reports[options.protocols[0]]
        for protocol, own in reports.items():
            means = [report["mean"] for report in own]
            if protocol == options.protocols[0]:
                self.rows[name] = self._lines.show(name, means, reports=own)
            else:
                self._lines.show(f"{name}, {protocol}", means)
        return detectors

    def normal_features(self, detector: jaxad.Detector, most: int) -> Features:
        """Features of so many normal test images, or of all, spread evenly over their list."""
        test = self._dataset.test
        normal = [index for index, record in enumerate(test.records) if not record.label]
        chosen = [normal[place] for place in np.unique(np.linspace(0, len(normal) - 1, most).astype(int))]
        cache = self._features(detector, "test") or FeatureCache.build(detector, test.select(chosen))
        return cache[chosen if len(cache) == len(test) else np.arange(len(chosen))]

    def _trained(self, config: jaxad.DPDiffConfig, training: jaxad.TrainConfig, workdir: Path) -> jaxad.Detector:
        """One run, trained or resumed."""
        detector = jaxad.DPDiff.create(config, key=jax.random.key(training.seed), backbone=self._loaded(config))
        return jaxad.fit(
            detector,
            self._dataset.train,
            training,
            workdir=workdir,
            provenance={"preset": self._options.preset, "holdout": self._options.holdout},
            features=None if _is_trained(workdir, training) else self._features(detector, "train"),
            reporter=self._reporter,
        ).model

    def _loaded(self, config: jaxad.DPDiffConfig):
        wanted = (config.backbone, compute_dtype(config.precision))
        if self._backbone[0] != wanted:
            self._backbone = (wanted, load_backbone(wanted[0], dtype=wanted[1]))
        return self._backbone[1]

    def _features(self, detector: jaxad.Detector, part: Literal["train", "test"]) -> FeatureCache | None:
        """Cached features of a part; None where they are computed when they are needed."""
        if self._options.cache == "off" or part not in self._kept:
            return None
        wanted = (detector.inputs.identity, tuple(detector.inputs.views.items()))
        if (known := self._caches.get(part)) is None or known[0] != wanted:
            source, folder = getattr(self._dataset, part), self._options.out / FEATURES / part
            with self._reporter.images(f"{part} features", len(source)) as progress:
                cache = FeatureCache.build(detector, source, folder=folder, progress=progress)
            self._caches[part] = wanted, cache
        return self._caches[part][1]


def _is_trained(workdir: Path, training: jaxad.TrainConfig) -> bool:
    """Whether a run has all its steps, so that nobody needs features to train it."""
    if not is_run(workdir):
        return False
    return bool((meta := read_meta(workdir)).get("complete")) and meta["step"] == training.steps
