"""Settings of training and of its data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import at_least, check_types, make_preset, raise_problems


@dataclass(frozen=True)
class TrainConfig:
    """How a trainable system is fitted (SPEC 3.4 rows 22, 23 and 29)."""

    steps: int = 40_000
    """Optimizer steps (SPEC 23)."""
    batch_size: int = 32
    """Images at once, over all devices (paper)."""
    accumulate: int = 1
    """Batches whose gradients make one optimizer step, for effective batches that do not fit in memory (ours)."""
    learning_rate: float = 1e-4
    """Peak learning rate of Adam (paper)."""
    warmup_steps: int = 0
    """Steps of linear warm-up from 0 (SPEC 22)."""
    schedule: Literal["constant", "cosine"] = "constant"
    """Learning rate after the warm-up: constant, or cosine to 0 at the last step (SPEC 22)."""
    clip_norm: float | None = None
    """Largest global gradient norm, None for no clipping (SPEC 22)."""
    weight_decay: float = 0.0
    """Decoupled weight decay (SPEC 22)."""
    ema: float | None = None
    """Decay of a moving average of the parameters, which is then what is evaluated; None for none (SPEC 22)."""
    sampling: Literal["even", "size"] = "even"
    """Categories drawn equally often, or in proportion to their number of images (ours)."""
    seed: int = 0
    """Seed of parameters, order and noise."""
    log_every: int = 10
    """Steps between rows of metrics.csv."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step always has one."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    cache: Literal["auto", "memory", "disk", "off"] = "auto"
    """Where frozen features are kept: "auto" is memory up to `cache_limit_gb`, else disk; "off" computes them anew."""
    cache_limit_gb: float = 4.0
    """Largest feature cache held in memory, in 1e9 bytes."""
    fsdp: int = 1
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the package tensorboardX)."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> TrainConfig:
        """The published training, or the short one for CPUs, demos and tests (SPEC row 29, but 800 steps)."""
        small = {
            "steps": 800,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "warmup_steps": 50,
            "schedule": "cosine",
            "clip_norm": 1.0,
            "checkpoint_every": 250,
        }
        return make_preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(
            self, 1, ("steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints", "fsdp")
        )
        problems += at_least(self, 0, ("warmup_steps", "weight_decay", "cache_limit_gb"))
        if not self.learning_rate > 0:
            problems.append(f"learning_rate = {self.learning_rate}: must be above 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            problems.append(f"clip_norm = {self.clip_norm}: must be above 0, or None")
        if self.ema is not None and not 0 < self.ema < 1:
            problems.append(f"ema = {self.ema}: must lie between 0 and 1, or be None")
        raise_problems("TrainConfig", problems)


@dataclass(frozen=True)
class DataConfig:
    """Which images, and which of them are kept out of training (DESIGN 4.10)."""

    categories: tuple[str, ...] | None = None
    """Categories to use, None for all."""
    holdout: float = 0.1
    """Share of the normal training images kept out for the threshold, at least 5 per category; 0 for none."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images: stop before training, or leave them out and record them in the report."""
    workers: int = 2
    """Threads that decode images."""

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(self, 0, ("workers",))
        if not 0 <= self.holdout < 1:
            problems.append(f"holdout = {self.holdout}: must be 0, or a share below 1")
        raise_problems("DataConfig", problems)
