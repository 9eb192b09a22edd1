"""The smallest DPDiff-AD that still has every part, on an untrained backbone, and a short training of it."""

from __future__ import annotations

from typing import Any

import jax

import jaxad

MODEL: dict[str, Any] = {
    "backbone": "random:32x2",
    "image_size": 56,
    "local_prototypes": 3,
    "prototype_heads": 2,
    "heads": 2,
    "depth": 1,
}
TRAIN: dict[str, Any] = {
    "steps": 12,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "clip_norm": 1.0,
    "ema": 0.5,
    "log_every": 1,
    "checkpoint_every": 4,
}


def toy_model(**changes: Any) -> Any:
    """A new toy detector; always the same parameters for the same config."""
    return jaxad.DPDiff.create(jaxad.DPDiffConfig(**MODEL | changes), key=jax.random.key(0))


def toy_training(**changes: Any) -> jaxad.TrainConfig:
    """Twelve steps with a checkpoint every four."""
    return jaxad.TrainConfig(**TRAIN | changes)
