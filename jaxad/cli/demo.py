"""`jaxad demo`: DPDiff-AD against the patch bank on the demo data, and how to go on from there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jaxad.cli._command import Command, command_line
from jaxad.cli._data import licensed
from jaxad.cli._printing import show
from jaxad.io.locks import occupied

if TYPE_CHECKING:
    from jaxad.data.demo.dataset import DemoCounts
    from jaxad.types import Features

SIZE = 224
"""Side in pixels of the images that the detectors see: half of what the preset takes, for the sake of time."""


@dataclass(frozen=True)
class Demo(Command):
    """Train, evaluate and report on real images that come with the `demo` extra; minutes on two cores."""

    words: ClassVar[str] = "demo"

    out: Path
    """Folder for data, run and report."""
    steps: int = 20
    """Training steps."""
    seed: int = 0
    """Seed of parameters, order and noise."""

    @property
    def run_folder(self) -> Path:
        return self.out / "run"

    def run(self, counts: DemoCounts | None = None) -> None:
        """Trains, compares, reports.

        Args:
            counts: images of each category; None for the usual ones.
        """
        with occupied(self.out, "out"):
            self._run(counts)

    def _run(self, counts: DemoCounts | None) -> None:
        import jax

        from jaxad import data
        from jaxad.cli._metrics_table import print_metrics
        from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig, to_json
        from jaxad.detectors.dpdiff.detector import DPDiff
        from jaxad.detectors.patch_bank import PatchBank
        from jaxad.features import FeatureCache
        from jaxad.features.cache import cache_identity
        from jaxad.inference.calibrate import choose_threshold
        from jaxad.inference.evaluation import make_report, score
        from jaxad.inference.figures import figures
        from jaxad.io.progress import Reporter
        from jaxad.report.page import write_report
        from jaxad.training.fit import fit

        settings = TrainConfig.preset("retrieval", steps=self.steps, warmup_steps=self.steps // 5, seed=self.seed)
        settings.check()
        reporter = Reporter()
        folder = data.make_demo(self.out / "data", counts=counts)
        dataset = dataclasses.replace(data.load(f"folder:{folder}"), name="demo")
        reporter.say(dataset.summary())
        detector = DPDiff.create(DPDiffConfig.preset("retrieval", image_size=SIZE), key=jax.random.key(self.seed))
        with reporter.images("features", len(dataset.train)) as progress:
            features = FeatureCache.build(detector, dataset.train, progress=progress)
        run = fit(
            detector,
            dataset.train,
            settings,
            workdir=self.run_folder,
            holdout=dataset.holdout,
            features=features,
            provenance=licensed(dataset),
            reporter=reporter,
        )
        bank = PatchBank.create(PatchBankConfig.preset("small"), backbone=detector.backbone)
        mean = _mean_of_groups(features.arrays, detector.config.groups)
        bank.remember(dataset.train, features=FeatureCache(mean, cache_identity(bank, dataset.train)))
        with reporter.images("evaluate", len(dataset.test)) as progress:
            mine = score(run.model, dataset.test, threshold=run.threshold, progress=progress)
        with reporter.images("baseline", len(dataset.test)) as progress:
            rule = choose_threshold(bank, dataset.holdout)
            theirs = score(bank, dataset.test, threshold=rule, progress=progress)
        provenance = {"train": to_json(settings)}
        report = make_report(mine, dataset, baseline=make_report(theirs, dataset), provenance=provenance)
        evaluation = figures(mine, baseline=theirs)
        page = write_report(self.out / "report", report, evaluation=evaluation)
        print_metrics(report)
        show(f"\nThe report: {page}\n{self._advice(folder)}")

    def _advice(self, folder: Path) -> str:
        """How to judge images with the run, and to fit one's own."""
        test, out, own = folder / "brick" / "test", self.out / "predictions", ("--data", "folder:/my/parts")
        judge = ("predict", test, "--checkpoint", self.run_folder, "--out", out, "--category", "brick")
        fit = ("fit", "dpdiff", *own, "--workdir", "runs/parts", "--preset", "retrieval")
        evaluate = ("evaluate", "--checkpoint", "runs/parts", *own, "--out", "runs/parts-report")
        return (
            f"Judge images: {command_line(*judge)}\n"
            "Your own parts, in folders CATEGORY/train/good and, where you have them, CATEGORY/test/...:\n"
            f"  {command_line(*fit)}\n"
            f"  {command_line(*evaluate)}"
        )


def _mean_of_groups(features: Features, groups: int) -> Features:
    """Features of the mean of all blocks, of those of equal groups that lie side by side: tokens [i n c]."""
    import numpy as np

    halves = np.asarray(features.tokens).reshape(*features.tokens.shape[:2], groups, -1)
    return dataclasses.replace(features, tokens=halves.mean(2, dtype=np.float32).astype(halves.dtype))
