"""Settings of VLMDiff and DiAD, and of their training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import Config, Precision, at_least, make_preset, setting
from jaxad.config.training import TrainConfig

VLMDiffPreset = Literal["paper", "diad", "small"]

_PUBLISHED: dict[str, Any] = {
    "epochs": 300,
    "batch_size": 12,
    "accumulate": 4,
    "micro_batch": "auto",
    "learning_rate": 1e-5,
    "weight_decay": 0.01,
    "seed": 1,
    "checkpoint_every": 1_900,
}
_SMALL: dict[str, Any] = {
    "steps": 600,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "warmup_steps": 20,
    "clip_norm": 1.0,
    "sampling": "even",
}


@dataclass(frozen=True)
class VLMDiffConfig(Config):
    """VLMDiff: caption-conditioned latent diffusion guided by the image (arXiv 2511.08173).

    The preset "paper" is the published setting, "diad" that of DiAD (arXiv 2312.06607): without captions, compared by a
    ResNet-50. "small" is for CPUs and tests.
    """

    RESOURCES: ClassVar = ("remat",)
    MAIN: ClassVar = ("stable_diffusion", "autoencoder", "checkpoint", "trained", "backbone", "image_size", "captions")
    PRESETS: ClassVar = {
        "paper": {},
        "diad": {"captions": "never", "backbone": "timm/resnet50.a1_in1k"},
        "small": {"stable_diffusion": "random:32", "backbone": "embedded", "image_size": 112, "remat": False},
    }

    stable_diffusion: str = setting(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        source="jaxad",
        reason="VLMDiff starts from v1-5-pruned.ckpt without its moving average; an id needs no file at hand",
        decision="vlmdiff-starting-point",
    )
    """What it starts from: the original v1-5-pruned.ckpt, without its moving average, or another .ckpt or .safetensors
    file; or a folder or Hugging Face id in diffusers layout, whose UNet is that moving average, a slightly different
    start; or "random:WIDTH", small untrained networks whose autoencoder has the factor 4."""
    autoencoder: str | None = setting(
        None,
        source="jaxad",
        reason="the paper finetunes one on each data set, which needs a run of its own",
        decision="vlmdiff-autoencoder",
    )
    """Finetuned autoencoder: a folder as `jaxad fit autoencoder` writes it, or an LDM .ckpt; None for that of
    `stable_diffusion`."""
    checkpoint: str | None = setting(None, source="jaxad", reason="for weights of VLMDiff's and DiAD's authors only")
    """A checkpoint of VLMDiff's or DiAD's authors (.ckpt), built or trained, in place of `stable_diffusion`,
    `autoencoder` and an untrained SGN: it contains all of them."""
    trained: bool = setting(False, source="jaxad", reason="for weights of VLMDiff's and DiAD's authors only")
    """Whether `checkpoint` is trained; then fit trains nothing and only chooses the threshold."""
    pixels: Literal["auto", "imagenet", "symmetric"] = setting(
        "auto",
        source="published code: VLMDiff",
        reason="it feeds the autoencoder ImageNet-normalized images; an autoencoder that was not finetuned needs -1..1",
        decision="vlmdiff-pixel-range",
    )
    """Range of the autoencoder's images: normalized by ImageNet's mean and deviation, or -1 to 1; "auto" is what
    the config.json of a finetuned autoencoder records, which no other value may contradict; without a record the former
    for a finetuned autoencoder and that of `checkpoint`, the latter for Stable Diffusion's own."""
    tokenizer: str | None = setting(None, source="jaxad", reason="a Stable Diffusion is published with its tokenizer")
    """Folder or id of the tokenizer; None for that of `stable_diffusion`, of a single file CLIP's."""
    ema: bool = setting(
        False,
        source="published code: VLMDiff",
        reason="it reads the tensors that are no average",
        decision="vlmdiff-starting-point",
    )
    """Start from the UNet's moving average, where a .ckpt has both; diffusers layout has nothing else."""
    backbone: str = setting("facebook/dino-vits8", source="paper", decision="vlmdiff-comparison-network")
    """Network whose features of image and reconstruction are compared: a ViT's last output after the final norm, or a
    convolutional network's outputs at strides 4, 8 and 16 (DiAD). A ViT whose patch does not divide the image sees it
    resized to the nearest multiple, DINOv2 252 of 256 px."""
    stages: tuple[int, ...] | None = setting(
        None,
        source="published code: VLMDiff",
        reason="it takes other stages of DINO's ResNet-50 than of ImageNet's",
        decision="vlmdiff-comparison-network",
    )
    """Stages of a convolutional `backbone` that are compared, from 0; None for those that end at strides 4, 8 and 16.
    Table 13's DINO ResNet-50 takes 1 2 3."""
    image_size: int = setting(256, source="paper")
    """Side in pixels of the square input; a multiple of the autoencoder's factor."""
    captions: Literal["train", "always", "never"] = setting("train", source="paper")
    """When captions condition the UNet: in training only, at test time as well (as published for COCO-AD), or never
    (DiAD). Without a caption, the text is ""."""
    guidance: float = setting(9.0, source="paper", decision="vlmdiff-guidance")
    """Classifier-free guidance, for captions at test time; with the text "" there is nothing to guide."""
    start_timestep: int = setting(
        999,
        source="published code: VLMDiff",
        reason="the code noises to the last timestep though its sampler starts at 901",
        decision="vlmdiff-start-timestep",
    )
    """Timestep to which an image is noised; less keeps more of it."""
    sampling_steps: int = setting(10, source="paper", decision="vlmdiff-start-timestep")
    """DDIM steps."""
    remat: bool = setting(True, source="jaxad", reason="saves memory; results do not depend on it")
    """Compute activations again for the gradient, layer by layer, instead of keeping them."""
    precision: Precision = setting(
        "auto", source="jaxad", reason="the published code computes in float32; accelerators are fastest in bfloat16"
    )
    """Compute type of the networks: "auto" is float32 on CPU and bfloat16 on GPU and TPU."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name.

        Published are epochs: 300, which are 22,700 steps of 48 images for MVTec-AD and 54,100 for VisA, and 100 for
        Real-IAD and COCO-AD. Steps among the `changes` take their place. Of a step's 48 images, published as 4 times
        12, as many are held at once as fit in the devices' memory.

        Raises:
            ConfigError: no preset has that name.
        """
        presets = {"paper": _PUBLISHED, "diad": _PUBLISHED, "small": _SMALL}
        return make_preset(TrainConfig, name, presets, changes)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        problems = at_least(self, 1, ("image_size", "start_timestep", "sampling_steps"))
        problems += at_least(self, 0, ("guidance",))
        if self.stages is not None and (not self.stages or min(self.stages) < 0):
            problems.append(f"stages = {self.stages}: needs numbers from 0")
        if self.start_timestep > 999:
            problems.append(f"start_timestep = {self.start_timestep}: must be at most 999")
        if self.checkpoint is not None and self.autoencoder is not None:
            problems.append(f"autoencoder = {self.autoencoder!r}: checkpoint = {self.checkpoint!r} has its own")
        if self.trained and self.checkpoint is None:
            problems.append("trained = True: needs checkpoint, the file of the trained model")
        if self.sampling_steps > self.start_timestep:
            problems.append(f"sampling_steps = {self.sampling_steps}: more than start_timestep = {self.start_timestep}")
        return problems
