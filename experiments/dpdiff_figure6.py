"""DPDiff-AD, Figure 6 and section 5.6.2: start timestep, number of DDIM steps, residual and noise draws at inference.

Command:
    python -m experiments.dpdiff_figure6 --checkpoint runs/mvtec --data folder:/data/mvtec_ad

Evaluates one checkpoint under every setting; nothing is trained. The paper gives the curves as a picture only: quality
rises with t to a moderate value and falls beyond it, and 3 DDIM steps are best (SPEC 3.4 rows 16, 17 and 30).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

import jaxad
from jaxad.evaluate import score
from jaxad.features import FeatureCache
from jaxad.metrics import summarise
from jaxad.progress import Reporter


@dataclass(frozen=True)
class Figure6:
    """Sweep inference settings of a checkpoint."""

    checkpoint: Path
    """A workdir or one step's folder of DPDiff-AD."""
    data: str
    """`folder:PATH` of categories in MVTec layout, or `demo`."""
    timesteps: tuple[int, ...] = (100, 200, 250, 300, 400)
    """Start timesteps t; those that the checkpoint's training never drew are left out."""
    steps: tuple[int, ...] = (1, 3)
    """Numbers of DDIM steps."""
    draws: tuple[int, ...] = (1, 4)
    """Numbers of noise draws."""
    residuals: tuple[Literal["squared", "cosine"], ...] = ("squared", "cosine")
    """Residual measures."""


def main(options: Figure6) -> list[tuple[dict[str, object], dict[str, float | None]]]:
    """Prints image AUROC, pixel AP and mAD of every setting, and the network evaluations an image takes."""
    reporter = Reporter()
    dataset = jaxad.data.load(options.data, config=jaxad.DataConfig(holdout=0.0))
    rows = []
    detector = jaxad.restore(options.checkpoint).detector
    end = detector.config.train_timesteps[1]
    known = [t for t in options.timesteps if t < end]
    if unknown := sorted(set(options.timesteps) - set(known)):
        reporter.warn([f"left out: start timesteps {unknown}, training drew those below {end}"])
    with reporter.images("features", len(dataset.test)) as progress:
        features = FeatureCache.build(detector, dataset.test, progress=progress)
    print(
        f"{'t':>4} {'steps':>5} {'draws':>5} {'residual':>8} {'evaluations':>11} {'I-AUROC':>8} {'P-AP':>6} {'mAD':>6}"
    )
    grid = itertools.product(known, options.steps, options.draws, options.residuals)
    for start, steps, draws, residual in grid:
        setting = {"start_timestep": start, "sampling_steps": steps, "draws": draws, "residual": residual}
        detector = jaxad.restore(options.checkpoint, **setting).detector
        with reporter.images(" ".join(map(str, setting.values())), len(dataset.test)) as progress:
            mean = summarise(score(detector, dataset.test, features=features, progress=progress).results())
        cells = ("-" if mean[m] is None else f"{100 * mean[m]:.1f}" for m in ("image_auroc", "pixel_ap", "mad"))
        auroc, ap, mad = cells
        numbers = f"{start:4} {steps:5} {draws:5} {residual:>8} {steps * draws:11}"
        print(f"{numbers} {auroc:>8} {ap:>6} {mad:>6}", flush=True)
        rows.append((setting, mean))
    return rows


if __name__ == "__main__":
    main(tyro.cli(Figure6, description=__doc__))
