"""DPDiff-AD, Table 5: what local and global prototypes and the diffusion model contribute.

Command (as published, MVTec-AD at 448 px; one GPU):
    python -m experiments.dpdiff_table5 --data folder:/data/mvtec_ad --out runs/table5
Small (two CPU cores):
    python -m experiments.dpdiff_table5 --data folder:/my/parts --out runs/table5 --preset small --steps 300

Each row is a run of its own below --out, resumed if it was interrupted; rows without diffusion score with the
prototypes that were trained together with it. Published numbers are for MVTec-AD with 15 categories; on other data only
the order of the rows can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import jax
import tyro

import jaxad
from jaxad.evaluate import score
from jaxad.features import FeatureCache
from jaxad.metrics import summarise
from jaxad.progress import Reporter

PUBLISHED = {
    "local prototypes alone": (72.7, 87.7, 87.3, 83.7, 27.1, 31.9, 77.6, 66.9),
    "global prototypes alone": (71.7, 84.7, 84.9, 79.2, 18.8, 24.2, 61.3, 60.7),
    "diffusion": (98.9, 99.6, 98.3, 98.0, 62.6, 63.6, 94.8, 88.0),
    "diffusion, local": (99.2, 99.8, 98.8, 98.5, 64.6, 64.7, 95.4, 88.7),
    "diffusion, global": (99.1, 99.7, 98.6, 98.4, 64.5, 64.8, 95.4, 88.6),
    "diffusion, local, global": (99.5, 99.9, 99.1, 98.7, 65.6, 64.8, 95.9, 89.1),
}
"""Image AUROC, AP, F1-max; pixel AUROC, AP, F1-max, AUPRO; mAD, in percent, in the order of `METRICS`."""
METRICS = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "mad")


@dataclass(frozen=True)
class Table5:
    """Train and evaluate the rows of Table 5."""

    data: str
    """`folder:PATH` of categories in MVTec layout, or `demo`."""
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


def main(options: Table5) -> dict[str, dict[str, float | None]]:
    """Runs every row and prints ours beside the published one; returns the means by row."""
    reporter = Reporter()
    dataset = jaxad.data.load(options.data, config=jaxad.DataConfig(holdout=options.holdout))
    given = {"backbone": options.backbone, "image_size": options.image_size}
    changes = {name: value for name, value in given.items() if value is not None}
    config = jaxad.DPDiffConfig.preset(options.preset, **changes)
    train = jaxad.TrainConfig.preset(options.preset)
    train = replace(train, steps=options.steps or train.steps)
    rows: dict[str, dict[str, float | None]] = {}
    detector = jaxad.DPDiff.create(config, key=jax.random.key(train.seed))
    caches = {}
    for part, source in (("train", dataset.train), ("test", dataset.test)):
        with reporter.images(f"{part} features", len(source)) as progress:
            caches[part] = FeatureCache.build(
                detector, source, folder=options.out / "features" / part, progress=progress
            )

    def trained(name: str, local: int, glob: int) -> jaxad.Run:
        variant = replace(config, local_prototypes=local, global_prototypes=glob)
        return jaxad.fit(
            jaxad.DPDiff.create(variant, key=jax.random.key(train.seed), backbone=detector.backbone),
            dataset.train,
            train,
            workdir=options.out / name.replace(", ", "-"),
            features=caches["train"],
            reporter=reporter,
        )

    def row(name: str, detector: jaxad.Detector) -> None:
        with reporter.images(name, len(dataset.test)) as progress:
            scored = score(detector, dataset.test, features=caches["test"], progress=progress)
        rows[name] = summarise(scored.results())
        print_row(name, rows[name])

    print_heading()
    for name, local, glob in (
        ("diffusion", 0, 0),
        ("diffusion, local", config.local_prototypes, 0),
        ("diffusion, global", 0, config.global_prototypes),
        ("diffusion, local, global", config.local_prototypes, config.global_prototypes),
    ):
        run = trained(name, local, glob)
        row(name, run.model)
        if (local > 0) != (glob > 0):
            alone = jaxad.restore(run.workdir, score="prototype").detector
            row(f"{'local' if local else 'global'} prototypes alone", alone)
    return rows


def print_heading() -> None:
    """Column names of `print_row`."""
    print(f"{'row':28} {'':10} " + " ".join(f"{name:>11}" for name in METRICS))


def print_row(name: str, mean: dict[str, float | None]) -> None:
    """One row, ours and published, in percent."""
    ours = " ".join("          -" if mean[m] is None else f"{100 * mean[m]:11.1f}" for m in METRICS)  # type: ignore[operator]
    print(f"{name:28} {'ours':10} {ours}")
    print(f"{'':28} {'published':10} " + " ".join(f"{value:11.1f}" for value in PUBLISHED[name]), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Table5, description=__doc__))
