"""PromptAD, whose rows stand in CLIPFusion's Tables 1 and 2, trained here with 1, 2 and 4 references.

Command (prepared data sets, see `jaxad prepare`; one GPU):
    python -m experiments.clipfusion.promptad --out runs/clipfusion

Expected: near the rows of CLIPFusion's tables, 92.6 and 94.9 AUROC of images and pixels on MVTec-AD with one reference,
or below them: PromptAD's public code keeps, of each category and for images and pixels by themselves, the epoch that
scores best on the test images, and jaxad the last one. Each seed draws other references and other first prompts.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar

import jax
import tyro

import jaxad
from experiments.clipfusion import table1
from experiments.clipfusion.rows import RowOptions, TrainedRow, run
from jaxad.config import CLIPFusionConfig, Precision, to_json
from jaxad.detectors.clipfusion.networks import FusionNetworks, load_text
from jaxad.detectors.promptad import PromptNetworks
from jaxad.models.clip.tokenizer import CLIPTokenizer
from jaxad.models.clip.towers import TextTower
from jaxad.types import Source


@dataclass(frozen=True)
class PromptADRow(TrainedRow):
    """A row of PromptAD; `preset` and `changes` are of PromptADConfig.

    Of the command's `--model` flags those count that both configs have, `PromptADConfig.SIGHT`.
    """

    system: ClassVar[str] = jaxad.PromptAD.name

    preset: str = "paper"

    def config(self, options: RowOptions) -> Any:
        default, preset = jaxad.PromptADConfig(), jaxad.PromptADConfig.preset(self.preset)
        theirs = CLIPFusionConfig()
        given = {
            name: value
            for name in jaxad.PromptADConfig.SIGHT
            if (value := getattr(options.model, name)) != getattr(theirs, name)
            if getattr(preset, name) == getattr(default, name)
        }
        given |= {} if options.clip is None else {"clip": options.clip}
        return jaxad.PromptADConfig.preset(self.preset, **{**given, **self.changes})

    def networks(self, config: Any) -> CLIPFusionConfig:
        return config.sight

    def fitted(self, config: Any, networks: FusionNetworks, source: Source, workdir: Path, seed: int) -> Any:
        backbone = PromptNetworks(networks, *_text(config.clip, config.clip_tokenizer, config.precision))
        model = jaxad.PromptAD.create(config, key=jax.random.key(seed), backbone=backbone)
        train = config.training(self.preset, seed=seed)
        # A step sees all references, once where they are fewer than published batches: copies count once.
        train = replace(train, batch_size=min(train.batch_size, math.lcm(len(source), jax.device_count())))
        return jaxad.fit(model, source, train, workdir=workdir / _run_name(config, train, source)).model


@lru_cache(maxsize=1)
def _text(clip: str, tokenizer: str | None, precision: Precision) -> tuple[TextTower, CLIPTokenizer]:
    """Text tower and tokenizer, read once for all runs of one CLIP."""
    sight = CLIPFusionConfig(models=("clip",), clip=clip, clip_tokenizer=tokenizer, precision=precision)
    return load_text(sight, "clip")


def _run_name(config: Any, train: Any, source: Source) -> str:
    """Name of a run's folder: other settings, references or seeds make another run."""
    references = [record.identity or str(record.file) for record in source.records]
    settings = [to_json(config), to_json(train), list(source.categories), references]
    return f"run-{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}"


ROWS = tuple(PromptADRow(f"PromptAD, {shots}-shot", shots=shots) for shots in (1, 2, 4))

PUBLISHED = {benchmark: {row.name: lines[row.name] for row in ROWS} for benchmark, lines in table1.BESIDE.items()}

main = partial(run, rows=ROWS, published=PUBLISHED, source="PromptAD of Tables 1 and 2")
"""Trains each row and prints ours beside the published one; returns the means by data set and row."""


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
