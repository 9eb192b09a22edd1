"""Bundles: the newest step of a run without what only training needs, which reads like a run."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from jaxad.errors import ConfigError
from jaxad.inference.card import write_card
from jaxad.inference.checkpoint import find_step
from jaxad.inference.rechoose import read_decided
from jaxad.inference.steps import COMPLETE, FOLDER, TRAINING, open_step
from jaxad.io.locks import occupied

_PART = ".bundle"


def write_bundle(checkpoint: Path | str, out: Path | str) -> Path:
    """Copies a step, byte by byte, without optimizer state: weights, memories, settings, threshold.

    Args:
        checkpoint: a workdir (its newest whole step), or one step's folder.
        out: folder of the bundle; a new one, or an empty one.

    Returns:
        `out`, which `jaxad.restore` and `--checkpoint` take as they take a run.

    Raises:
        CheckpointError: there is no such step, or it is damaged.
        ConfigError: `out` holds something, or cannot be written.
    """
    out, source = Path(out), find_step(checkpoint)
    step = open_step(source)
    step.check(*(step.items - {TRAINING}))
    if (out / FOLDER).exists():
        raise ConfigError(f"out = {out}: holds a run or a bundle already; give a new folder")
    with occupied(out, "out"):
        part = out / _PART
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(source, part / str(step.number), ignore=_without_training(source))
        open_step(part / str(step.number)).check()
        if (config := source.parents[1] / "config.json").is_file() and source.parent.name == FOLDER:
            shutil.copy2(config, out / config.name)
        # Until it has this name there is no bundle.
        os.rename(part, out / FOLDER)
        if (out / FOLDER / str(step.number) / COMPLETE).exists():
            write_card(read_decided(out), out)
    return out


def _without_training(source: Path):
    def ignored(folder: str, names: list[str]) -> list[str]:
        return [TRAINING] if Path(folder) == source and TRAINING in names else []

    return ignored
