"""Settings of VLMDiff and DiAD, and of their training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import Precision, at_least, check_types, make_preset, raise_problems
from jaxad.config.training import TrainConfig

VLMDiffPreset = Literal["paper", "diad", "small"]


@dataclass(frozen=True)
class VLMDiffConfig:
    """VLMDiff (arXiv 2511.08173): caption-conditioned latent diffusion guided by the image (SPEC 1)."""

    stable_diffusion: str = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    """What it starts from: the original v1-5-pruned.ckpt, without its moving average (paper), or another .ckpt or
    .safetensors file; or a folder or Hugging Face id in diffusers layout, whose UNet is that moving average, a slightly
    different start; or "random:WIDTH", small untrained networks whose autoencoder has the factor 4."""
    autoencoder: str | None = None
    """Finetuned autoencoder (paper): a folder as `jaxad fit autoencoder` writes it, or an LDM .ckpt; None for that of
    `stable_diffusion`."""
    checkpoint: str | None = None
    """A checkpoint of VLMDiff's or DiAD's authors (.ckpt), built or trained, in place of `stable_diffusion`,
    `autoencoder` and an SGN that is yet to learn: all of them are in it."""
    trained: bool = False
    """Whether `checkpoint` is trained; then fit trains nothing and only chooses the threshold."""
    pixels: Literal["auto", "imagenet", "symmetric"] = "auto"
    """Range of the autoencoder's images: normalized by ImageNet's mean and deviation (paper), or -1 to 1; "auto" is the
    former for a finetuned autoencoder and that of `checkpoint`, the latter for Stable Diffusion's own (SPEC 1.5)."""
    tokenizer: str | None = None
    """Folder or id of the tokenizer; None for that of `stable_diffusion`, of a single file CLIP's."""
    ema: bool = False
    """Start from the UNet's moving average, where a .ckpt has both (paper: no); diffusers layout has nothing else."""
    backbone: str = "facebook/dino-vits8"
    """Network whose features of image and reconstruction are compared: a ViT's last output after the final norm
    (paper), or a convolutional network's outputs at strides 4, 8 and 16 (DiAD). A ViT whose patch does not divide the
    image sees it resized to the nearest multiple, DINOv2 252 of 256 px (ours; SPEC 1.9)."""
    image_size: int = 256
    """Side in pixels of the square input (paper); a multiple of the autoencoder's factor."""
    captions: Literal["train", "always", "never"] = "train"
    """When captions condition the UNet: in training (paper), also at test time (paper, for COCO-AD), or never (DiAD).
    Without one, the text is ""."""
    guidance: float = 9.0
    """Classifier-free guidance (paper), for captions at test time; with the text "" there is nothing to guide."""
    start_timestep: int = 999
    """Timestep to which an image is noised (paper); less keeps more of it."""
    sampling_steps: int = 10
    """DDIM steps (paper)."""
    remat: bool = True
    """Compute activations again for the gradient, layer by layer, instead of keeping them (ours)."""
    precision: Precision = "auto"
    """Compute type of the networks: "auto" is float32 on CPU and bfloat16 on GPU and TPU."""

    @classmethod
    def preset(cls, name: VLMDiffPreset = "paper", **changes: Any) -> VLMDiffConfig:
        """The published setting, DiAD's (arXiv 2312.06607), or a small one for CPUs and tests (ours)."""
        diad = {"captions": "never", "backbone": "timm/resnet50.a1_in1k"}
        small = {"stable_diffusion": "random:32", "backbone": "embedded", "image_size": 112, "remat": False}
        return make_preset(cls, name, {"paper": {}, "diad": diad, "small": small}, changes)

    @classmethod
    def training(cls, name: VLMDiffPreset = "paper", **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name (SPEC 1.6).

        Published are epochs: 22,700 steps of 48 images are the 300 epochs of MVTec-AD, VisA's are 54,100, and the 100
        epochs of Real-IAD 76,000.
        """
        published = {
            "steps": 22_700,
            "batch_size": 12,
            "accumulate": 4,
            "learning_rate": 1e-5,
            "weight_decay": 0.01,
            "sampling": "size",
            "seed": 1,
            "checkpoint_every": 1_900,
        }
        small = {"steps": 600, "batch_size": 8, "learning_rate": 1e-3, "warmup_steps": 20, "clip_norm": 1.0}
        return make_preset(TrainConfig, name, {"paper": published, "diad": published, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(self, 1, ("image_size", "start_timestep", "sampling_steps"))
        problems += at_least(self, 0, ("guidance",))
        if self.start_timestep > 999:
            problems.append(f"start_timestep = {self.start_timestep}: must be at most 999")
        if self.checkpoint is not None and self.autoencoder is not None:
            problems.append(f"autoencoder = {self.autoencoder!r}: checkpoint = {self.checkpoint!r} has its own")
        if self.trained and self.checkpoint is None:
            problems.append("trained = True: needs checkpoint, the file of the trained model")
        if self.sampling_steps > self.start_timestep:
            problems.append(f"sampling_steps = {self.sampling_steps}: more than start_timestep = {self.start_timestep}")
        raise_problems("VLMDiffConfig", problems)
