"""Every setting of jaxad as frozen dataclasses, free of jax imports, with a JSON round trip (DESIGN 4.8).

A field's docstring says where its default comes from: "paper" (published), "SPEC n" (row n of SPEC 3.4, where the paper
is silent) or "ours". `check()` lists every impossible value at once.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from jaxad.errors import ConfigError

C = TypeVar("C")

Precision = Literal["auto", "float32", "bfloat16"]

Blocks = tuple[int, ...] | Literal["middle"] | None
"""Which outputs of a backbone make the features: blocks by number from 0, averaged; or "middle", the middle third; or
None, from half the depth on. Of a convolutional network they are stages, concatenated, and both words stand for those
that end at strides 4, 8 and 16 (SPEC 26, 27)."""


@dataclass(frozen=True)
class DPDiffConfig:
    """DPDiff-AD: dual prototypes, prototype-conditioned diffusion, residual maps (arXiv 2605.24402, SPEC 3)."""

    backbone: str = "facebook/dinov2-with-registers-base"
    """Frozen features: a folder, file or Hugging Face id, or "embedded", the ViT-S/14 of the `demo` extra (paper)."""
    blocks: Blocks = None
    """Blocks of a ViT, from 0, that are averaged: numbers, "middle" third, or None for the last half (paper: 6-11; SPEC
    1, 27); of a convolutional network the stages that are concatenated, None for strides 4, 8 and 16 (SPEC 26)."""
    image_size: int = 448
    """Side in pixels of the square input; a multiple of the backbone's patch (paper)."""
    standardise: Literal["channel", "token", "none"] = "channel"
    """Feature scaling before diffusion: fixed per-channel statistics, per-token layer norm, or none (SPEC 3)."""

    local_prototypes: int = 8
    """Number M of local prototypes; 0 leaves them out (paper)."""
    global_prototypes: int = 2
    """Number K of global prototypes; 0 leaves them out (paper)."""
    prototype_heads: int | None = None
    """Attention heads of the extractors; None for as many as leave 64 channels or more to each (SPEC 6: 12 of 768)."""
    prototype_mlp_ratio: float = 4.0
    """Width of the extractors' feed-forward layer over the feature width (SPEC 6)."""
    prototype_pre_norm: bool = True
    """Layer norm before attention and feed-forward in the extractors; Eq. 10 writes none (SPEC 6)."""
    local_weight: float = 0.2
    """Weight lambda_1 of the local prototype loss (paper)."""
    global_weight: float = 0.001
    """Weight lambda_2 of the optimal-transport loss (paper)."""
    sinkhorn_epsilon: float = 0.05
    """Entropic regularisation, relative to a cost divided by the feature width (SPEC 14)."""
    sinkhorn_iterations: int = 500
    """Most log-domain Sinkhorn iterations; fewer where marginals hold to 1e-4 (ours: the 50 of SPEC 14 are too few)."""
    detach_prototypes: bool = False
    """Stop the diffusion loss from reaching the extractors (SPEC 13)."""

    timesteps: int = 1000
    """Length T of the noise schedule (paper)."""
    beta_start: float = 1e-4
    """First beta of the linear schedule (paper)."""
    beta_end: float = 0.02
    """Last beta of the linear schedule (paper)."""
    train_timesteps: tuple[int, int] = (0, 1000)
    """Half-open range from which training draws t uniformly (SPEC 15: all)."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the denoiser's last layer outputs; the loss is on that quantity (paper: the noise)."""

    denoiser: Literal["dit", "unet", "uvit"] = "dit"
    """Architecture of the denoiser: DiT (paper), U-Net or U-ViT (paper Table 9, SPEC 28)."""
    width: int | None = None
    """Width of the denoiser; None takes the feature width, 3/8 of it for the U-Net's first level (SPEC 7, 28)."""
    heads: int | None = None
    """Attention heads of the denoiser; None for as many as leave 64 channels or more to each (SPEC 7: 12 of 768)."""
    depth: int = 4
    """Blocks of the denoiser: 1 is fastest, 12 is DiT-B; the U-Net always has two levels of two (SPEC 7)."""
    mlp_ratio: float = 4.0
    """Width of the feed-forward layers of a DiT or U-ViT over its own width (SPEC 7)."""
    self_attention: bool = True
    """Self-attention in every block of a DiT, besides the prototype attention (SPEC 8)."""

    start_timestep: int = 250
    """Timestep t to which test features are noised (SPEC 16)."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """Reverse process: deterministic DDIM over few steps, or ancestral DDPM over every step (paper)."""
    sampling_steps: int = 3
    """Evenly spaced DDIM steps from `start_timestep` to 0 (paper; SPEC 17)."""
    noise: Literal["shared", "fresh"] = "shared"
    """One draw of prototype noise for all steps of an image, or a new one at each (SPEC 18)."""
    draws: int = 1
    """Noise draws whose reconstructions are averaged before the residual is taken (SPEC 30)."""
    residual: Literal["squared", "cosine"] = "squared"
    """Squared L2 of standardised features (paper, Eq. 22), or 1 - cosine of the backbone's own features (SPEC 30)."""
    score: Literal["reconstruction", "prototype"] = "reconstruction"
    """Map from the reconstruction (paper), or 1 - cosine to the nearest prototype (paper Table 5, rows 1 and 2)."""
    precision: Precision = "auto"
    """Compute type of the networks: "auto" is float32 on CPU and bfloat16 on GPU and TPU (DESIGN 4.4)."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> DPDiffConfig:
        """The published setting, or the small one for CPUs, demos and tests (SPEC row 29).

        The small one differs where it learns and detects more in few steps: middle blocks, v-prediction, only the
        timesteps that inference visits, one DDIM step from each of four noise draws, cosine residual.
        """
        small = {
            "backbone": "embedded",
            "image_size": 224,
            "blocks": "middle",
            "depth": 2,
            "prediction": "v",
            "train_timesteps": (0, 400),
            "sampling_steps": 1,
            "draws": 4,
            "residual": "cosine",
        }
        return _preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        _check_types(self)
        problems = _at_least(
            self,
            0,
            ("local_prototypes", "global_prototypes", "local_weight", "global_weight", "start_timestep"),
        )
        positive = ("image_size", "prototype_heads", "prototype_mlp_ratio", "sinkhorn_iterations", "timesteps", "heads")
        problems += _at_least(self, 1, (*positive, "depth", "mlp_ratio", "sampling_steps", "draws"))
        low, high = self.train_timesteps
        if not 0 <= low < high <= self.timesteps:
            problems.append(f"train_timesteps = {low, high}: needs 0 <= low < high <= timesteps = {self.timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            problems.append(f"beta_start, beta_end = {self.beta_start, self.beta_end}: needs 0 < start <= end < 1")
        if not self.sinkhorn_epsilon > 0:
            problems.append(f"sinkhorn_epsilon = {self.sinkhorn_epsilon}: needs to be above 0")
        if self.start_timestep >= self.timesteps:
            problems.append(f"start_timestep = {self.start_timestep}: needs to be below timesteps = {self.timesteps}")
        if self.sampler == "ddim" and self.sampling_steps > self.start_timestep:
            problems.append(f"sampling_steps = {self.sampling_steps}: more than start_timestep = {self.start_timestep}")
        if self.denoiser != "dit" and not self.self_attention:
            problems.append(f'self_attention = False: the denoiser "{self.denoiser}" always has it; use "dit"')
        if self.score == "prototype" and self.local_prototypes + self.global_prototypes == 0:
            problems.append('score = "prototype" needs local_prototypes or global_prototypes above 0')
        problems += _repeated(self.blocks)
        _raise("DPDiffConfig", problems)


@dataclass(frozen=True)
class PatchBankConfig:
    """Nearest-patch memory bank, PatchCore's scoring (arXiv 2106.08265) on the same features as the other systems."""

    backbone: str = "facebook/dinov2-with-registers-base"
    """Frozen features: a folder, file or Hugging Face id, or "embedded" for the ViT-S/14 of the `demo` extra."""
    blocks: Blocks = None
    """Blocks of a ViT, counted from 0, that are averaged: numbers, "middle" third, or None for the last half; of a
    convolutional network the stages that are concatenated, None for strides 4, 8 and 16."""
    image_size: int = 448
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    bank_size: int = 20_000
    """Patches kept in each bank; more are subsampled."""
    subsampling: Literal["random", "coreset"] = "random"
    """Which patches are kept: a random subset, or PatchCore's greedy k-centre coreset."""
    per_category: bool = False
    """One bank for each category (needs the category at test time) instead of one for all."""
    distance: Literal["cosine", "euclidean"] = "cosine"
    """1 - cosine, or the L2 distance, to the nearest patch of the bank."""
    neighbours: int = 1
    """Nearest patches over which the distance is averaged."""
    chunk: int = 4096
    """Bank entries compared at once: memory is batch x tokens x chunk."""
    seed: int = 0
    """Seed of the subsampling."""
    precision: Precision = "auto"
    """Compute type of the backbone: "auto" is float32 on CPU and bfloat16 on GPU and TPU."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> PatchBankConfig:
        """The setting beside DPDiff-AD's preset of the same name."""
        small = {"backbone": "embedded", "image_size": 224, "blocks": "middle"}
        return _preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        _check_types(self)
        problems = _at_least(self, 1, ("image_size", "bank_size", "neighbours", "chunk"))
        if self.neighbours > self.chunk:
            problems.append(f"neighbours = {self.neighbours}: more than chunk = {self.chunk}")
        problems += _repeated(self.blocks)
        _raise("PatchBankConfig", problems)


@dataclass(frozen=True)
class TrainConfig:
    """How a trainable system is fitted (SPEC 3.4 rows 22, 23 and 29)."""

    steps: int = 40_000
    """Optimizer steps (SPEC 23)."""
    batch_size: int = 32
    """Images in a step, over all devices (paper)."""
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
        """The published training, or the short one for CPUs, demos and tests (SPEC row 29)."""
        small = {
            "steps": 800,
            "batch_size": 16,
            "learning_rate": 2e-3,
            "warmup_steps": 50,
            "schedule": "cosine",
            "clip_norm": 1.0,
            "checkpoint_every": 250,
        }
        return _preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        _check_types(self)
        problems = _at_least(
            self, 1, ("steps", "batch_size", "log_every", "checkpoint_every", "keep_checkpoints", "fsdp")
        )
        problems += _at_least(self, 0, ("warmup_steps", "weight_decay", "cache_limit_gb"))
        if not self.learning_rate > 0:
            problems.append(f"learning_rate = {self.learning_rate}: needs to be above 0")
        if self.clip_norm is not None and not self.clip_norm > 0:
            problems.append(f"clip_norm = {self.clip_norm}: needs to be above 0, or None")
        if self.ema is not None and not 0 < self.ema < 1:
            problems.append(f"ema = {self.ema}: needs to lie between 0 and 1, or be None")
        _raise("TrainConfig", problems)


@dataclass(frozen=True)
class DataConfig:
    """Which images, and which of them are kept out of training (DESIGN 4.10)."""

    source: str = ""
    """`folder:PATH` of a folder in MVTec layout, or the name of a prepared data set."""
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
        _check_types(self)
        problems = _at_least(self, 0, ("workers",))
        if not 0 <= self.holdout < 1:
            problems.append(f"holdout = {self.holdout}: needs to be 0, or a share below 1")
        _raise("DataConfig", problems)


def to_json(config: Any) -> dict[str, Any]:
    """A config dataclass as JSON-ready values; the inverse of `from_json`."""
    return {f.name: _jsonable(getattr(config, f.name)) for f in dataclasses.fields(config)}


def from_json(cls: type[C], values: dict[str, Any]) -> C:
    """A config of class `cls` from JSON values; fields that are not given keep their defaults.

    Raises:
        ConfigError: unknown field names or values of a wrong type, all listed at once.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    problems = [f"{name}: no such field in {cls.__name__}" for name in values if name not in known]
    given = {}
    for name in known & values.keys():
        try:
            given[name] = _typed(hints[name], values[name])
        except (TypeError, ValueError) as error:
            problems.append(f"{name} = {values[name]!r}: {error}")
    _raise(cls.__name__, problems)
    return cls(**given)


def _check_types(config: Any) -> None:
    """Raises ConfigError listing every value that is of a wrong type or none of the choices."""
    from_json(type(config), to_json(config))


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    return [_jsonable(item) for item in value] if isinstance(value, tuple) else value


def _typed(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        problems = []
        for choice in (argument for argument in arguments if argument is not type(None)):
            try:
                return _typed(choice, value)
            except (TypeError, ValueError) as error:
                problems.append(str(error))
        raise TypeError(" or ".join(problems))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"needs to be one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise TypeError("needs to be a list")
        if arguments[-1] is Ellipsis:
            return tuple(_typed(arguments[0], item) for item in value)
        if len(value) != len(arguments):
            raise ValueError(f"needs to be {len(arguments)} values")
        return tuple(map(_typed, arguments, value))
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise TypeError(f"needs to be of type {hint.__name__}")
    return value


def _preset(cls: type[C], name: str, presets: dict[str, dict[str, Any]], changes: dict[str, Any]) -> C:
    if name not in presets:
        raise ConfigError(f"preset {name!r}: {cls.__name__} has {', '.join(presets)}")
    return cls(**{**presets[name], **changes})


def _at_least(config: Any, bound: float, names: tuple[str, ...]) -> list[str]:
    values = ((name, getattr(config, name)) for name in names)
    return [
        f"{name} = {value}: needs to be at least {bound}"
        for name, value in values
        if value is not None and not value >= bound
    ]


def _repeated(blocks: Blocks) -> list[str]:
    if not isinstance(blocks, tuple) or (blocks and len(set(blocks)) == len(blocks)):
        return []
    return [f"blocks = {blocks}: needs one or more different block numbers"]


def _raise(name: str, problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join([f"{name} cannot be used:", *(f"  {problem}" for problem in problems)]))
