"""Optimizers by the names that a config gives them, and their learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optax
from optax import contrib

from jaxad.config import TrainConfig
from jaxad.training.stable_adamw import stable_adamw

MUON_RATE = 10
"""Learning rate of what Muon trains, matrices, over that of all else, which Adam does."""


MOMENTUM = 0.9
"""Of SGD."""


def make_optimizer(config: TrainConfig) -> tuple[optax.GradientTransformation, Callable[[Any], Any]]:
    """The optimizer as configured, and its learning rate as a function of the step."""
    after = optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        decay_steps = max(config.schedule_end - config.warmup_steps, 1)
        after = optax.cosine_decay_schedule(config.learning_rate, decay_steps, config.final_rate)
    warmup = optax.linear_schedule(0.0, config.learning_rate, max(config.warmup_steps, 1))
    rate = optax.join_schedules([warmup, after], [config.warmup_steps])
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    return optax.chain(*clip, _optimizer(config, rate)), rate


def _optimizer(config: TrainConfig, rate: Callable[[Any], Any]) -> optax.GradientTransformation:
    decay, moment = config.weight_decay, config.first_moment
    if config.optimizer == "sgd":
        return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, MOMENTUM, accumulator_dtype=moment))
    if config.optimizer == "stable-adamw":
        return stable_adamw(rate, weight_decay=decay, first_moment=moment)
    if config.optimizer == "muon":
        return contrib.muon(
            lambda step: MUON_RATE * rate(step),
            weight_decay=decay / MUON_RATE,
            mu_dtype=moment,
            adam_learning_rate=rate,
            adam_weight_decay=decay,
        )
    if decay:
        return optax.adamw(rate, weight_decay=decay, mu_dtype=moment)
    return optax.adam(rate, mu_dtype=moment)
