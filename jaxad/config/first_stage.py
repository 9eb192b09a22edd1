"""Settings of autoencoder finetuning, the first stage of VLMDiff and DiAD.

The settings are those of VLMDiff's published code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from jaxad.config.fields import Config, at_least, setting
from jaxad.config.training import counted_steps, length_problems

BASE_LEARNING_RATE = 4.5e-5
"""Learning rate for each image of a batch (VLMDiff's code)."""

_CODE = "published code: VLMDiff"
_GIVEN = "a value of its first stage's configuration"


@dataclass(frozen=True)
class FirstStageConfig(Config):
    """The autoencoder KL-f8 (arXiv 2112.10752) to start from, and the loss that finetunes it.

    The preset "paper" is the published setting, "small" one for CPUs: half the sides, no LPIPS.
    """

    RESOURCES: ClassVar = ("remat",)
    MAIN: ClassVar = ("source", "image_size", "pixels", "perceptual_weight", "vgg")
    PRESETS: ClassVar = {"paper": {}, "small": {"image_size": 128, "perceptual_weight": 0.0}}

    source: str = setting(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        source="jaxad",
        reason="VLMDiff starts from latent diffusion's kl-f8, which has no hub id; Stable Diffusion 1 has its weights",
        decision="vlmdiff-autoencoder",
    )
    """Autoencoder to start from: a folder or hub id in diffusers layout, of a pipeline or alone, or an LDM .ckpt, such
    as latent diffusion's kl-f8, whose weights Stable Diffusion 1 has too; or "random:WIDTH", a small untrained one of
    the factor 4."""
    image_size: int = setting(256, source="paper")
    """Side in pixels of the square images."""
    pixels: Literal["imagenet", "symmetric"] = setting(
        "imagenet",
        source=_CODE,
        reason="its second stage feeds the autoencoder the same normalized images",
        decision="vlmdiff-pixel-range",
    )
    """Range of images: normalized by ImageNet's mean and deviation, which VLMDiff's second stage expects, or -1 to 1,
    as Stable Diffusion takes them. The folder's config.json records it."""
    scaling_factor: Literal["auto", "kept", "measured"] = setting(
        "auto",
        source="jaxad",
        reason="VLMDiff keeps 0.18215; an untrained autoencoder has no factor to keep",
        decision="vlmdiff-autoencoder",
    )
    """What the UNet multiplies latents by, written to the folder's config.json: "kept" is that of `source`, 0.18215 for
    Stable Diffusion 1 and 2, which finetuning does not change; "measured" is 1 / deviation of the latents of training
    images, so that the UNet sees unit deviation (arXiv 2112.10752 G); "auto" is measured for "random:WIDTH" and kept
    otherwise."""
    perceptual_weight: float = setting(1.0, source=_CODE, reason=_GIVEN)
    """Weight of LPIPS beside the absolute error; 0 trains without it, and then needs no VGG weights."""
    vgg: str | None = setting(None, source="jaxad", reason="kl-f8's checkpoint brings them")
    """Weights of VGG16 for LPIPS: torchvision's file, or one of a whole LPIPS; None for those that `source` brings,
    which latent diffusion's .ckpt does."""
    lpips: str | None = setting(None, source="jaxad", reason="kl-f8's checkpoint brings them")
    """Weights of LPIPS's channels, the file vgg.pth of the package lpips; None where `vgg` or `source` holds them."""
    kl_weight: float = setting(1e-6, source=_CODE, reason=_GIVEN)
    """Weight of the divergence of latents from the standard Gaussian."""
    discriminator_weight: float = setting(0.5, source=_CODE, reason=_GIVEN)
    """Weight of the adversarial loss after its adaptive weight; 0 trains without a discriminator."""
    discriminator_start: int = setting(50_001, source=_CODE, reason=_GIVEN)
    """Optimizer steps after which the adversarial loss counts; a shorter run makes no discriminator."""
    discriminator_layers: int = setting(3, source=_CODE, reason=_GIVEN)
    """Halvings of the image by a new discriminator; one that `source` brings has its own."""
    discriminator_width: int = setting(64, source=_CODE, reason=_GIVEN)
    """Channels of a new discriminator's first layer."""
    remat: bool = setting(False, source="jaxad", reason="one image at a time fits in memory")
    """Compute activations again for the gradient, block by block: less memory, a third more time."""

    @property
    def measures_scale(self) -> bool:
        """Whether the latents' scaling factor is measured."""
        if self.scaling_factor == "auto":
            return self.source.startswith("random:")
        return self.scaling_factor == "measured"

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = at_least(
            self, 0, ("perceptual_weight", "kl_weight", "discriminator_weight", "discriminator_start")
        ) + at_least(self, 1, ("discriminator_layers", "discriminator_width"))
        if self.discriminator_layers > 10:
            return [*problems, f"discriminator_layers = {self.discriminator_layers}: must be at most 10"]
        if self.image_size < 16:
            problems.append(f"image_size = {self.image_size}: must be at least 16")
        # A logit sees a patch of the halved image with 4 pixels on each side.
        smallest = 2 ** (self.discriminator_layers + 2)
        if self.discriminator_weight > 0 and self.image_size < smallest:
            problems.append(
                f"image_size = {self.image_size}: {self.discriminator_layers} discriminator_layers need {smallest}"
            )
        if self.lpips is not None and self.vgg is None:
            problems.append(f"lpips = {self.lpips!r}: needs vgg too, the features that these weights are for")
        return problems


@dataclass(frozen=True)
class FirstStageTrainConfig(Config):
    """How the autoencoder is finetuned.

    The preset "paper" is the published training, "small" a short one for CPUs.
    """

    RESOURCES: ClassVar = ("log_every", "checkpoint_every", "keep_checkpoints", "fsdp", "loggers", "eval_every")
    ALTERNATIVES: ClassVar = ("epochs", "steps")
    MAIN: ClassVar = ("epochs", "steps", "batch_size", "accumulate", "learning_rate", "fsdp")
    PRESETS: ClassVar = {
        "paper": {"epochs": 100},
        "small": {"steps": 400, "batch_size": 4, "accumulate": 1, "checkpoint_every": 100},
    }

    epochs: float | None = setting(
        None,
        source="jaxad",
        reason="neither paper nor code gives a length; its users stop by hand",
        decision="vlmdiff-autoencoder",
    )
    """Passes over the images: 100, without `steps` the default, suits MVTec-AD, VisA and MPDD, 10 the larger Real-IAD
    and COCO-AD."""
    steps: int | None = setting(None, source="jaxad", reason="`epochs` suits data sets of any size")
    """Optimizer steps, in place of `epochs`."""
    batch_size: int = setting(1, source=_CODE, reason=_GIVEN)
    """Images at once, over all devices: 1 for VLMDiff, 4 for DiAD."""
    accumulate: int = setting(8, source=_CODE, reason=_GIVEN)
    """Batches whose gradients make one optimizer step."""
    learning_rate: float | None = setting(None, source=_CODE, reason=_GIVEN)
    """Learning rate of Adam; None for 4.5e-5 times batch_size."""
    betas: tuple[float, float] = setting((0.5, 0.9), source=_CODE, reason=_GIVEN)
    """Decays of Adam's moments."""
    sampling: Literal["even", "size"] = setting("size", source=_CODE, reason="it shuffles all images together")
    """Categories drawn in proportion to their number of images, or equally often."""
    seed: int = setting(0, source="jaxad", reason="any number does")
    """Seed of order, noise and a new discriminator."""
    log_every: int = setting(10, source="jaxad", reason="results do not depend on it")
    """Steps between rows of metrics.csv."""
    checkpoint_every: int = setting(1000, source="jaxad", reason="results do not depend on it")
    """Steps between checkpoints, at each of which the folder `autoencoder` is written too."""
    keep_checkpoints: int = setting(2, source="jaxad", reason="results do not depend on it")
    """Newest checkpoints kept."""
    fsdp: int = setting(1, source="jaxad", reason="the networks fit on one device")
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    loggers: tuple[str, ...] = setting((), source="jaxad", reason="metrics.csv needs no further package")
    """What also gets the rows of metrics.csv and of evaluations: tensorboard, wandb (offline) or mlflow, which are
    extras of jaxad, or a logger of another package."""
    eval_every: int | None = setting(None, source="jaxad", reason="results do not depend on it")
    """Steps between reconstructions of a few images of the hold-out, whose mean absolute error is noted, before the
    first step and after the last one too; None for none."""

    def __post_init__(self) -> None:
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", self.PRESETS["paper"]["epochs"])

    @property
    def rate(self) -> float:
        """The learning rate that is used."""
        return BASE_LEARNING_RATE * self.batch_size if self.learning_rate is None else self.learning_rate

    @property
    def images(self) -> int:
        """Images of an optimizer step."""
        return self.batch_size * self.accumulate

    def steps_for(self, images: int) -> int:
        """Optimizer steps of a run on so many images."""
        return counted_steps(self, images)

    def counted(self, images: int) -> FirstStageTrainConfig:
        """The same in steps alone."""
        return replace(self, steps=self.steps_for(images), epochs=None)

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        counts = ("batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints")
        problems = length_problems(self) + at_least(self, 1, (*counts, "fsdp", "eval_every"))
        if not self.rate > 0:
            problems.append(f"learning_rate = {self.learning_rate}: must be above 0, or None")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"betas = {self.betas}: must be at least 0 and below 1")
        return problems
