"""Settings of training and of its data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol

from jaxad.config.fields import Config, at_least, setting


class _Trained(Protocol):
    """How long, and with how many images a step, something is trained."""

    @property
    def steps(self) -> int | None: ...

    @property
    def epochs(self) -> float | None: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def accumulate(self) -> int: ...


def counted_steps(config: _Trained, images: int) -> int:
    """Optimizer steps of a training: those given, else as many as its epochs over so many images take."""
    if config.steps is not None:
        return config.steps
    assert config.epochs is not None
    return max(math.ceil(config.epochs * images / (config.batch_size * config.accumulate)), 1)


def length_problems(config: _Trained) -> list[str]:
    """What cannot be the length of a training."""
    if config.steps is not None and config.epochs is not None:
        return [f"steps = {config.steps}, epochs = {config.epochs:g}: are two ways to say how long; give one of them"]
    problems = at_least(config, 1, ("steps",))
    if config.epochs is not None and not config.epochs > 0:
        problems.append(f"epochs = {config.epochs}: must be above 0")
    return problems


SMALL_TRAINING: Mapping[str, Any] = {
    "steps": 800,
    "batch_size": 16,
    "warmup_steps": 50,
    "schedule": "cosine",
    "sampling": "even",
    "checkpoint_every": 250,
}
"""What the trainings of the presets "small" have in common."""


@dataclass(frozen=True)
class TrainConfig(Config):
    """How a trainable detector is fitted.

    The preset "paper" is the training of DPDiff-AD, "small" a short one for CPUs, demos and tests, "retrieval" one for
    DPDiff-AD's preset of that name, whose steps take twice as long. Detectors that are trained otherwise have presets
    of their own, see `VLMDiffConfig.training`.
    """

    RESOURCES: ClassVar = (
        "log_every",
        "checkpoint_every",
        "keep_checkpoints",
        "cache",
        "cache_limit_gb",
        "device_share",
        "fsdp",
        "loggers",
        "eval_every",
        "eval_images",
        "eval_on",
    )
    ALTERNATIVES: ClassVar = ("steps", "epochs")
    MAIN: ClassVar = (
        "steps",
        "epochs",
        "batch_size",
        "accumulate",
        "micro_batch",
        "learning_rate",
        "seed",
        "checkpoint_every",
        "eval_every",
        "fsdp",
    )
    PRESETS: ClassVar = {
        "paper": {"steps": 40_000},
        "small": {**SMALL_TRAINING, "learning_rate": 2e-3, "clip_norm": 1.0},
        "retrieval": {**SMALL_TRAINING, "learning_rate": 2e-3, "clip_norm": 1.0, "steps": 300, "warmup_steps": 30},
    }

    steps: int | None = setting(
        None,
        source="jaxad",
        reason="the paper gives no length; 40,000 steps, its preset's, are about 350 epochs of MVTec-AD",
        decision="dpdiff-training-length",
    )
    """Optimizer steps; None for as many as `epochs` take. Without either they are 40,000."""
    epochs: float | None = setting(None, source="jaxad", reason="most detectors' lengths are given in steps")
    """Passes over the training images, in place of `steps`."""
    batch_size: int = setting(32, source="paper")
    """Images at once, over all devices."""
    accumulate: int = setting(1, source="jaxad", reason="the published batch fits in memory")
    """Batches whose gradients make one optimizer step, for effective batches that do not fit in memory."""
    micro_batch: int | Literal["auto"] | None = setting(
        None, source="jaxad", reason="the published batch fits in memory; noise is drawn for each micro-batch"
    )
    """Images at once, over all devices, where a step's batch_size x accumulate images do not fit: a number that divides
    them, or "auto" for as many as fit in the devices' memory; None for batch_size."""
    learning_rate: float = setting(1e-4, source="paper")
    """Peak learning rate of the optimizer; of Muon for what is no matrix, matrices take 10 times as much."""
    optimizer: Literal["adam", "stable-adamw", "muon", "sgd"] = setting(
        "adam", source="paper", decision="dpdiff-optimizer"
    )
    """Adam; StableAdamW with AMSGrad, as Dinomaly has it; Muon for matrices and Adam for all else; or SGD with a
    momentum of 0.9."""
    warmup_steps: int = setting(
        0, source="jaxad", reason="the paper gives a learning rate alone", decision="dpdiff-optimizer"
    )
    """Steps of linear warm-up from 0."""
    schedule: Literal["constant", "cosine"] = setting(
        "constant", source="jaxad", reason="the paper gives a learning rate alone", decision="dpdiff-optimizer"
    )
    """Learning rate after the warm-up: constant, or cosine to `final_rate` at the last step."""
    schedule_steps: int | None = setting(
        None, source="jaxad", reason="a cosine ends with the training unless more steps are to follow"
    )
    """Step at which the cosine ends; None for the last one. With a number, a finished run may go on with more steps."""
    final_rate: float = setting(
        0.0, source="jaxad", reason="the paper mentions no schedule", decision="dpdiff-optimizer"
    )
    """Share of the peak learning rate that the cosine ends at."""
    clip_norm: float | None = setting(
        None, source="jaxad", reason="the paper mentions no clipping", decision="dpdiff-optimizer"
    )
    """Largest global gradient norm, None for no clipping."""
    weight_decay: float = setting(
        0.0, source="jaxad", reason="the paper says Adam, which has none", decision="dpdiff-optimizer"
    )
    """Decoupled weight decay; with SGD it is part of the gradient, as in torch."""
    first_moment: Literal["float32", "bfloat16"] = setting(
        "float32", source="jaxad", reason="exact; a second moment of 16 bits would not grow, and stays float32"
    )
    """Type in which Adam keeps its first moment, and SGD its momentum; bfloat16 spares Adam 2 bytes of 16 for each
    trained parameter."""
    ema: float | None = setting(
        None, source="jaxad", reason="the paper mentions no moving average", decision="dpdiff-optimizer"
    )
    """Decay of a moving average of the parameters, which is then what is evaluated; None for none."""
    sampling: Literal["even", "size"] = setting(
        "size",
        source="jaxad",
        reason="the papers name no balance, so all images are shuffled together",
        decision="dpdiff-optimizer",
    )
    """Categories drawn in proportion to their number of images, or equally often, so that small ones are learned as
    well as large ones."""
    seed: int = setting(0, source="jaxad", reason="the paper gives none")
    """Seed of parameters, order and noise."""
    log_every: int = setting(10, source="jaxad", reason="results do not depend on it")
    """Steps between rows of metrics.csv."""
    checkpoint_every: int = setting(1000, source="jaxad", reason="results do not depend on it")
    """Steps between checkpoints; the last step always has one."""
    keep_checkpoints: int = setting(2, source="jaxad", reason="results do not depend on it")
    """Newest checkpoints kept."""
    cache: Literal["auto", "memory", "disk", "off"] = setting(
        "auto", source="jaxad", reason="frozen features of unaugmented images never change"
    )
    """Where frozen features are kept: "auto" is memory up to `cache_limit_gb`, else disk; "off" computes them anew.
    Those in memory are also copied to the workdir until the run is complete, for a run that is resumed."""
    cache_limit_gb: float = setting(4.0, source="jaxad", reason="enough for a small benchmark")
    """Largest feature cache held in memory, in 1e9 bytes."""
    device_share: float = setting(0.5, source="jaxad", reason="the step needs the rest; results do not depend on it")
    """Share of a device's free memory that cached features may take; those that need more, as all on CPUs, stay with
    the host, and 0 leaves them there."""
    fsdp: int = setting(1, source="jaxad", reason="every published network fits on one device")
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    loggers: tuple[str, ...] = setting((), source="jaxad", reason="metrics.csv needs no further package")
    """What also gets the rows of metrics.csv and of evaluations: tensorboard, wandb (offline) or mlflow, which are
    extras of jaxad, or a logger of another package."""
    eval_every: int | None = setting(None, source="jaxad", reason="results do not depend on it")
    """Steps between evaluations while training, before the first step and after the last one too; None for none."""
    eval_images: int = setting(64, source="jaxad", reason="few enough to be judged in seconds, enough for a curve")
    """Images of an evaluation at most, evenly chosen from all categories, and from normal and anomalous ones."""
    eval_on: Literal["holdout", "test"] = setting(
        "holdout", source="jaxad", reason="a training that is steered by test images has seen them"
    )
    """Which images: normal ones of the hold-out, for their loss and scores, or test images, for the metrics."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "steps", self.PRESETS["paper"]["steps"])

    @property
    def last_step(self) -> int:
        """The number of the last step; of a config in steps."""
        assert self.steps is not None, "the images are not known yet over which `counted` counts epochs"
        return self.steps

    @property
    def schedule_end(self) -> int:
        """The step at which the schedule ends; of a config in steps."""
        return self.last_step if self.schedule_steps is None else self.schedule_steps

    def counted(self, images: int) -> TrainConfig:
        """The same in steps alone: those of `epochs` over so many images, the last of which may be short of a whole."""
        return replace(self, steps=counted_steps(self, images), epochs=None)

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = length_problems(self)
        problems += at_least(
            self, 1, ("batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints", "fsdp")
        )
        problems += at_least(self, 1, ("eval_every", "eval_images", "schedule_steps"))
        images = self.batch_size * self.accumulate
        if isinstance(self.micro_batch, int) and (self.micro_batch < 1 or images % self.micro_batch):
            problems.append(
                f"micro_batch = {self.micro_batch}: must divide the {images} images of batch_size x accumulate"
            )
        problems += at_least(self, 0, ("warmup_steps", "weight_decay", "cache_limit_gb"))
        if not 0 <= self.device_share <= 1:
            problems.append(f"device_share = {self.device_share}: must lie between 0 and 1")
        if not self.learning_rate > 0:
            problems.append(f"learning_rate = {self.learning_rate}: must be above 0")
        if not 0 <= self.final_rate <= 1:
            problems.append(f"final_rate = {self.final_rate}: must lie between 0 and 1")
        problems += self._schedule_problems()
        if self.clip_norm is not None and not self.clip_norm > 0:
            problems.append(f"clip_norm = {self.clip_norm}: must be above 0, or None")
        if self.ema is not None and not 0 < self.ema < 1:
            problems.append(f"ema = {self.ema}: must lie between 0 and 1, or be None")
        return problems

    def _schedule_problems(self) -> list[str]:
        """What cannot be the end of a schedule."""
        end = self.schedule_steps
        if end is None:
            return []
        if self.schedule != "cosine":
            return [f"schedule_steps = {end}: a constant schedule has no end; leave it out"]
        if self.steps is not None and self.steps > end and self.final_rate == 0:
            return [
                f"schedule_steps = {end}: the {self.steps} steps go on at a rate of 0; give a new run a final_rate, "
                "which may begin with the parameters of one that is there (a warm start)"
            ]
        return []


def up_to_date(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training as an earlier version recorded them, in the fields that there are today."""
    settings = dict(recorded)
    # Before there were other loggers.
    if settings.pop("tensorboard", False) is True:
        settings.setdefault("loggers", ["tensorboard"])
    return settings


NAMES = ("good_names", "test_good_names", "defect_names", "mask_names")
"""Fields of `DataConfig` that say what folders mean."""


@dataclass(frozen=True)
class DataConfig(Config):
    """Which images are used, and which of them are kept out of training."""

    categories: tuple[str, ...] | None = setting(None, source="paper")
    """Categories to use, None for all."""
    holdout: float = setting(
        0.1,
        source="jaxad",
        reason="the papers train on all normal images and choose no threshold",
        decision="hold-out-and-threshold",
    )
    """Share of the normal training images kept out for the threshold, at least 5 per category; 0 for none."""
    on_bad: Literal["stop", "skip"] = setting("stop", source="jaxad", reason="no image may be missing unnoticed")
    """What to do about unusable images: stop before training, or leave them out and record them in the report."""
    workers: int | None = setting(None, source="jaxad", reason="results do not depend on it")
    """Threads that decode images; None for one per CPU that this process may use."""
    good_names: tuple[str, ...] = setting((), source="jaxad", reason="common words are known")
    """Further names of folders, or labels of a table, of normal images."""
    test_good_names: tuple[str, ...] = setting((), source="jaxad", reason="common words are known")
    """Names of folders of normal images to test on that lie in no folder test/."""
    defect_names: tuple[str, ...] = setting((), source="jaxad", reason="every other name is a defect")
    """Names of all folders, or labels of a table, of defective images; folders of other names are then left out."""
    mask_names: tuple[str, ...] = setting((), source="jaxad", reason="common words are known")
    """Names of folders of masks."""

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """The names given, by field; only those fields that have some."""
        return {field: getattr(self, field) for field in NAMES if getattr(self, field)}

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = at_least(self, 0, ("workers",))
        meanings: dict[str, str] = {}
        for field, names in self.names.items():
            for name in names:
                if not name.strip() or "/" in name or "\\" in name:
                    problems.append(f"{field} = {name!r}: must be the name of a folder, not a path")
                if meanings.setdefault(name, field) != field:
                    problems.append(f"{field} = {name}: is among {meanings[name]} too; a name means one thing")
        if not 0 <= self.holdout < 1:
            problems.append(f"holdout = {self.holdout}: must be 0, or a share below 1")
        return problems
