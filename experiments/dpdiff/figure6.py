"""DPDiff-AD, Figure 6 and section 5.6.2: start timestep, number of DDIM steps, residual and noise draws at inference.

Command:
    python -m experiments.dpdiff.figure6 --checkpoint runs/mvtec --data folder:/data/mvtec_ad

Expected: quality rises with t to a moderate value and falls beyond it, and 3 DDIM steps are best; the paper gives the
curves as a picture only. Residuals and draws are not in the paper. One checkpoint is evaluated under every setting;
nothing is trained. Leaves the curves of one draw and the squared residual as figure6.svg and figure6.pdf beside the
records; features of the test images lie there too until all settings are done.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tyro

import jaxad
from experiments.drawing import Panel, write_curves
from experiments.rows import Mean, percent
from experiments.sweep import SweepOptions, sweep
from jaxad.features import FeatureCache
from jaxad.io.progress import Reporter
from jaxad.metrics import LABELS

METRICS = ("image_auroc", "pixel_ap", "mad")


@dataclass(frozen=True)
class Figure6(SweepOptions):
    """Sweep inference settings of a checkpoint of DPDiff-AD."""

    timesteps: tuple[int, ...] = (100, 200, 250, 300, 400)
    """Start timesteps t; those that the checkpoint's training never drew are left out."""
    steps: tuple[int, ...] = (1, 3)
    """Numbers of DDIM steps."""
    draws: tuple[int, ...] = (1, 4)
    """Numbers of noise draws."""
    residuals: tuple[Literal["squared", "cosine"], ...] = ("squared", "cosine")
    """Residual measures."""


def main(options: Figure6) -> list[tuple[dict[str, Any], Mean]]:
    """Prints image AUROC, pixel AP and mAD of every setting, and the network evaluations an image takes."""
    reporter, rows = Reporter(), []
    test = options.load(options.data).test
    detector = jaxad.restore(options.checkpoint).detector
    end = detector.config.train_timesteps[1]
    known = [t for t in options.timesteps if t < end]
    if unknown := sorted(set(options.timesteps) - set(known)):
        reporter.warn([f"left out: start timesteps {unknown}, training drew those below {end}"])
    cache = options.folder / "features"
    with reporter.images("features", len(test)) as progress:
        features = FeatureCache.build(detector, test, folder=cache, progress=progress)
    auroc, ap, mad = (LABELS[metric].short for metric in METRICS)
    print(f"{'t':>4} {'steps':>5} {'draws':>5} {'residual':>8} {'evaluations':>11} {auroc:>8} {ap:>6} {mad:>6}")
    names = ("start_timestep", "sampling_steps", "draws", "residual")
    grid = itertools.product(known, options.steps, options.draws, options.residuals)
    settings: list[dict[str, Any]] = [dict(zip(names, values, strict=True)) for values in grid]
    results = sweep(options, test, settings, reporter, features=features)
    for setting, (_, mean) in zip(settings, results, strict=True):
        start, steps, draws, residual = setting.values()
        numbers = f"{start:4} {steps:5} {draws:5} {residual:>8} {steps * draws:11}"
        print(
            f"{numbers} {percent([mean['image_auroc']], 8)} {percent([mean['pixel_ap'], mean['mad']], 6)}", flush=True
        )
        rows.append((setting, mean))
    del features
    shutil.rmtree(cache)
    write_curves([_panel(rows, metric) for metric in METRICS], options.folder, "figure6")
    return rows


def _panel(rows: Sequence[tuple[dict[str, Any], Mean]], metric: str) -> Panel:
    """A metric over the start timestep, a curve for each number of steps; other settings are the first ones."""
    curves: dict[str, dict[float, float | None]] = {}
    for setting, mean in rows:
        curve = curves.setdefault(f"{setting['sampling_steps']} steps", {})
        curve.setdefault(setting["start_timestep"], mean[metric])
    return Panel(LABELS[metric].short, "start timestep", curves)


if __name__ == "__main__":
    main(tyro.cli(Figure6, description=__doc__))
