"""Settings of autoencoder finetuning, the first stage of VLMDiff and DiAD (SPEC 1.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import at_least, check_types, make_preset, raise_problems

BASE_LEARNING_RATE = 4.5e-5
"""Learning rate for each image of a batch (paper)."""


@dataclass(frozen=True)
class FirstStageConfig:
    """The autoencoder KL-f8 (arXiv 2112.10752) to start from, and the loss that finetunes it."""

    source: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """Autoencoder to start from: a folder or hub id in diffusers layout, of a pipeline or alone, or an LDM .ckpt, such
    as latent diffusion's kl-f8 (paper), whose weights Stable Diffusion 1 has too; or "random:WIDTH", a small untrained
    one of the factor 4."""
    image_size: int = 256
    """Side in pixels of the square images (paper)."""
    pixels: Literal["imagenet", "symmetric"] = "imagenet"
    """Range of images: normalized by ImageNet's mean and deviation, which VLMDiff's second stage expects (SPEC 1.4), or
    -1 to 1, as Stable Diffusion takes them."""
    scaling_factor: Literal["auto", "kept", "measured"] = "auto"
    """What the UNet multiplies latents by, left in the folder's config.json: "kept" is that of `source`, 0.18215 for
    Stable Diffusion 1 and 2, which finetuning does not change (paper); "measured" is 1 / deviation of the latents of
    training images, so that the UNet sees unit deviation (arXiv 2112.10752 G); "auto" is measured for "random:WIDTH"
    and kept otherwise."""
    perceptual_weight: float = 1.0
    """Weight of LPIPS beside the absolute error (paper); 0 trains without it, and then needs no VGG weights."""
    vgg: str | None = None
    """Weights of VGG16 for LPIPS: torchvision's file, or one of a whole LPIPS; None for those that `source` brings,
    which latent diffusion's .ckpt does."""
    lpips: str | None = None
    """Weights of LPIPS's channels, the file vgg.pth of the package lpips; None where `vgg` or `source` holds them."""
    kl_weight: float = 1e-6
    """Weight of the divergence of latents from the standard Gaussian (paper)."""
    discriminator_weight: float = 0.5
    """Weight of the adversarial loss after its adaptive weight; 0 trains without a discriminator (paper)."""
    discriminator_start: int = 50_001
    """Optimizer steps after which the adversarial loss counts (paper); a run that is shorter makes no discriminator."""
    discriminator_layers: int = 3
    """Halvings of the image by a new discriminator (paper); one that `source` brings has its own."""
    discriminator_width: int = 64
    """Channels of a new discriminator's first layer (paper)."""
    remat: bool = False
    """Compute activations again for the gradient, block by block: less memory, a third more time (ours)."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> FirstStageConfig:
        """The published setting, or one for CPUs: half the sides, no LPIPS."""
        small = {"image_size": 128, "perceptual_weight": 0.0}
        return make_preset(cls, name, {"paper": {}, "small": small}, changes)

    @property
    def measures_scale(self) -> bool:
        """Whether the latents' scaling factor is measured."""
        if self.scaling_factor == "auto":
            return self.source.startswith("random:")
        return self.scaling_factor == "measured"

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(
            self, 0, ("perceptual_weight", "kl_weight", "discriminator_weight", "discriminator_start")
        ) + at_least(self, 1, ("discriminator_layers", "discriminator_width"))
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
        raise_problems("FirstStageConfig", problems)


@dataclass(frozen=True)
class FirstStageTrainConfig:
    """How the autoencoder is finetuned (SPEC 1.5)."""

    epochs: int = 100
    """Passes over the images: 100 for MVTec-AD, VisA and MPDD, 10 for Real-IAD and COCO-AD (SPEC 1.5; the paper is
    silent)."""
    steps: int | None = None
    """Optimizer steps; None for as many as `epochs` take."""
    batch_size: int = 1
    """Images at once, over all devices: 1 for VLMDiff, 4 for DiAD (paper)."""
    accumulate: int = 8
    """Batches whose gradients make one optimizer step (paper)."""
    learning_rate: float | None = None
    """Learning rate of Adam; None for 4.5e-5 times batch_size (paper)."""
    betas: tuple[float, float] = (0.5, 0.9)
    """Decays of Adam's moments (paper)."""
    sampling: Literal["even", "size"] = "size"
    """Categories drawn in proportion to their number of images (paper), or equally often."""
    seed: int = 0
    """Seed of order, noise and a new discriminator."""
    log_every: int = 10
    """Steps between rows of metrics.csv."""
    checkpoint_every: int = 1000
    """Steps between checkpoints, at each of which the folder `autoencoder` is written too."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept."""
    fsdp: int = 1
    """Devices over which parameters and optimizer state are sharded; the others are data-parallel."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the package tensorboardX)."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> FirstStageTrainConfig:
        """The published training, or a short one for CPUs."""
        small = {"steps": 400, "batch_size": 4, "accumulate": 1, "checkpoint_every": 100}
        return make_preset(cls, name, {"paper": {}, "small": small}, changes)

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
        return math.ceil(self.epochs * images / self.images) if self.steps is None else self.steps

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        counts = ("epochs", "steps", "batch_size", "accumulate", "log_every", "checkpoint_every", "keep_checkpoints")
        problems = at_least(self, 1, (*counts, "fsdp"))
        if not self.rate > 0:
            problems.append(f"learning_rate = {self.learning_rate}: must be above 0, or None")
        if not all(0 <= beta < 1 for beta in self.betas):
            problems.append(f"betas = {self.betas}: must be at least 0 and below 1")
        raise_problems("FirstStageTrainConfig", problems)
