"""PromptAD, whose rows stand in CLIPFusion's Tables 1 and 2, trained here with 1, 2 and 4 references.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.promptad --out runs/clipfusion

Expected: near the rows of CLIPFusion's tables, 92.6 and 94.9 AUROC of images and pixels on MVTec-AD with one reference,
or below them: PromptAD's public code keeps, of each category and for images and pixels by themselves, the epoch that
scores best on the test images, and jaxad the last one. Each seed draws other references and other first prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import tyro

import jaxad
from experiments.clipfusion import table1
from experiments.clipfusion.rows import RowOptions, TrainedRow, run
from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion.networks import FusionNetworks, load_text
from jaxad.detectors.promptad import PromptNetworks
from jaxad.types import Source


@dataclass(frozen=True)
class PromptADRow(TrainedRow):
    """A row of PromptAD; `preset` and `changes` are of PromptADConfig."""

    system: ClassVar[str] = jaxad.PromptAD.name

    preset: str = "paper"

    def config(self, options: RowOptions) -> Any:
        config = jaxad.PromptADConfig.preset(self.preset, **self.changes)
        return config if options.clip is None else replace(config, clip=options.clip)

    def networks(self, config: Any) -> CLIPFusionConfig:
        return config.sight

    def fitted(self, config: Any, networks: FusionNetworks, source: Source, workdir: Path, seed: int) -> Any:
        backbone = PromptNetworks(networks, *load_text(config.sight, "clip"))
        model = jaxad.PromptAD.create(config, key=jax.random.key(seed), backbone=backbone)
        return jaxad.fit(model, source, config.training(self.preset, seed=seed), workdir=workdir / "run").model


ROWS = tuple(PromptADRow(f"PromptAD, {shots}-shot", shots=shots) for shots in (1, 2, 4))

PUBLISHED = {benchmark: {row.name: lines[row.name] for row in ROWS} for benchmark, lines in table1.BESIDE.items()}

main = partial(run, rows=ROWS, published=PUBLISHED, source="PromptAD of Tables 1 and 2")
"""Trains each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
