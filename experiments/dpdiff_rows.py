"""What the tables of DPDiff-AD share: each row is a run of its own, all are evaluated alike.

Not an experiment itself; `dpdiff_table5.py` and its neighbours call `Table.row` for every row of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import jaxad
from jaxad.evaluate import score
from jaxad.features import FeatureCache
from jaxad.metrics import summarise
from jaxad.models.backbone import load_backbone
from jaxad.precision import compute_dtype
from jaxad.progress import Reporter

METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "mad")
"""Columns, macro means over the categories; published values stand in this order, in percent."""

Mean = dict[str, float | None]


@dataclass(frozen=True)
class RowOptions:
    """Data, preset and length of the runs of a table."""

    data: str
    """`folder:PATH` of categories in MVTec layout, a prepared data set, or `demo`."""
    out: Path
    """Folder of the runs."""
    preset: Literal["paper", "small"] = "paper"
    """Defaults of model and training."""
    steps: int | None = None
    """Optimizer steps of each run; the preset's if not given."""
    backbone: str | None = None
    """Folder or id of the backbone; the preset's if not given."""
    image_size: int | None = None
    """Side of the square input in pixels; the preset's if not given."""
    holdout: float = 0.0
    """Share of normal images kept out of training; 0 in the paper."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    seeds: tuple[int, ...] = (0,)
    """Every row is trained once for each; more than one gives mean and standard deviation."""


class Table:
    """Trains and evaluates rows and prints ours beside the published ones.

    Attributes:
        config, train: settings of a row that changes nothing.
        rows: mean over the seeds of every metric, 0..1, by row.
    """

    def __init__(self, options: RowOptions, published: Mapping[str, Sequence[float]]):
        given = {"backbone": options.backbone, "image_size": options.image_size}
        changes = {name: value for name, value in given.items() if value is not None}
        self.config = jaxad.DPDiffConfig.preset(options.preset, **changes)
        self.train = jaxad.TrainConfig.preset(options.preset)
        self.train = replace(self.train, steps=options.steps or self.train.steps)
        self.rows: dict[str, Mean] = {}
        self._options, self._published = options, published
        self._dataset = jaxad.data.load(
            options.data, options.data_dir, config=jaxad.DataConfig(holdout=options.holdout)
        )
        self._reporter = Reporter()
        self._backbone: tuple[Any, Any] = (None, None)
        self._features: tuple[Any, dict[str, FeatureCache]] = (None, {})
        print(f"{'row':28} {'':10} " + " ".join(f"{name:>11}" for name in METRICS))

    def row(
        self, name: str, *, run: str = "", train: dict | None = None, restored: dict | None = None, **model: Any
    ) -> None:
        """Trains (or resumes) one row for each seed, evaluates and prints it.

        Args:
            name: of the row, as in the published table.
            run: name of the row whose training this one shares; its own if not given.
            train: fields of TrainConfig that differ.
            restored: fields of DPDiffConfig that differ at inference only.
            model: fields of DPDiffConfig that differ.
        """
        folder = self._options.out / re.sub(r"\W+", "-", run or name)
        config = replace(self.config, **model)
        means = []
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
                features=features["train"],
                reporter=self._reporter,
            )
            model_ = jaxad.restore(workdir, **restored).detector if restored else trained.model
            with self._reporter.images(name, len(self._dataset.test)) as progress:
                scored = score(model_, self._dataset.test, features=features["test"], progress=progress)
            means.append(summarise(scored.results()))
        self.rows[name] = {metric: _mean([mean[metric] for mean in means]) for metric in METRICS}
        self._print(name, means)

    def _loaded(self, config: jaxad.DPDiffConfig):
        wanted = (config.backbone, compute_dtype(config.precision))
        if self._backbone[0] != wanted:
            self._backbone = (wanted, load_backbone(wanted[0], dtype=wanted[1]))
        return self._backbone[1]

    def _encoded(self, detector: jaxad.Detector) -> dict[str, FeatureCache]:
        """Features of both parts; rows that share a backbone, its blocks and the image size share them."""
        wanted = (detector.encoder_identity, tuple(detector.views.items()))
        if self._features[0] != wanted:
            caches = {}
            for part, source in (("train", self._dataset.train), ("test", self._dataset.test)):
                folder = self._options.out / "features" / part
                with self._reporter.images(f"{part} features", len(source)) as progress:
                    caches[part] = FeatureCache.build(detector, source, folder=folder, progress=progress)
            self._features = (wanted, caches)
        return self._features[1]

    def _print(self, name: str, means: list[Mean]) -> None:
        mean = self.rows[name]
        print(f"{name:28} {'ours':10} {_percent([mean[metric] for metric in METRICS])}", flush=True)
        if len(means) > 1:
            spread = [_deviation([mean[metric] for mean in means]) for metric in METRICS]
            print(f"{'':28} {'std':10} {_percent(spread)}", flush=True)
        if name in self._published:
            values = " ".join(f"{value:11.1f}" for value in self._published[name])
            print(f"{'':28} {'published':10} {values}", flush=True)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _deviation(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.std(known, ddof=1)) if len(known) == len(values) else None


def _percent(values: Sequence[float | None]) -> str:
    return " ".join("          -" if value is None else f"{100 * value:11.1f}" for value in values)
