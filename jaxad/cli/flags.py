"""What each command takes, as dataclasses that tyro turns into flags; free of jax."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from jaxad.config import (
    CLIPFusionConfig,
    CLIPFusionPreset,
    DPDiffConfig,
    FirstStageConfig,
    FirstStageTrainConfig,
    PatchBankConfig,
    Precision,
    TrainConfig,
    VLMDiffConfig,
    VLMDiffPreset,
)

Preset = Literal["paper", "small"]
Protocol = Literal["exact-256", "exact-448", "diad", "ader", "dinomaly", "winclip"]
Save = Literal["overlay", "map", "mask"]


class _Command:
    """What can be said of every command."""

    keeps: ClassVar[str] = ""
    """What an interrupted command has finished, and finds again when it is run once more."""

    @property
    def run_folder(self) -> Path | None:
        """Folder of the training run that the command begins or resumes, None where it does neither."""
        return None


@dataclass(frozen=True, kw_only=True)
class _Data(_Command):
    data: str
    """`folder:PATH` of categories in MVTec layout, `demo`, or what `jaxad prepare` made: `NAME` or `NAME/CATEGORY`."""
    categories: tuple[str, ...] | None = None
    """Categories to use; all if not given."""
    data_dir: Path | None = None
    """Folder of prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    workers: int = 2
    """Threads that decode images."""

    @property
    def chosen_categories(self) -> tuple[str, ...] | None:
        """The categories to load, None for all."""
        return self.categories


@dataclass(frozen=True, kw_only=True)
class _UsableData(_Data):
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images: stop before any work, or leave them out and record them."""


@dataclass(frozen=True, kw_only=True)
class _FitImages(_UsableData):
    workdir: Path
    """Folder of the run; run the same command again to resume it."""
    image_size: int | None = None
    """Side of the square input in pixels; short for --model.image-size, and goes before it."""
    holdout: float = 0.1
    """Share of normal training images kept out for the threshold, at least 5 per category; 0 for none."""

    @property
    def run_folder(self) -> Path:
        return self.workdir


@dataclass(frozen=True, kw_only=True)
class _FitData(_FitImages):
    false_alarm: float = 0.01
    """Share of normal images allowed above the threshold."""
    protocol: Protocol = "exact-256"
    """Evaluation protocol in which the threshold is measured."""


@dataclass(frozen=True, kw_only=True)
class FitDPDiff(_FitData):
    """Train DPDiff-AD: one diffusion model, conditioned on prototypes, for all categories."""

    preset: Preset = "paper"
    """Defaults of --model and --train: the published ones, or small ones for CPUs."""
    model: DPDiffConfig = field(default_factory=DPDiffConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    system: ClassVar[str] = "dpdiff"


@dataclass(frozen=True, kw_only=True)
class FitPatchBank(_FitData):
    """Fill a nearest-patch memory bank (PatchCore's scoring), the baseline."""

    preset: Preset = "paper"
    """Defaults of --model: the published ones, or small ones for CPUs."""
    model: PatchBankConfig = field(default_factory=PatchBankConfig)
    train: ClassVar[None] = None
    system: ClassVar[str] = "patch-bank"


@dataclass(frozen=True, kw_only=True)
class FitVLMDiff(_FitData):
    """Train VLMDiff: Stable Diffusion, with captions and guided by the image itself, redraws parts as normal ones."""

    preset: VLMDiffPreset = "paper"
    """Defaults of --model and --train: the published ones, DiAD's (no captions, ResNet-50), or small ones for CPUs."""
    captions: Path | None = None
    """Captions of the training images in the published layout, a folder or file as `jaxad caption` writes it; those
    stored with a prepared data set if not given."""
    protocol: Protocol = "diad"
    """Evaluation protocol in which the threshold is measured."""
    model: VLMDiffConfig = field(default_factory=VLMDiffConfig)
    train: TrainConfig = field(default_factory=VLMDiffConfig.training)
    system: ClassVar[str] = "vlmdiff"


@dataclass(frozen=True, kw_only=True)
class FitCLIPFusion(_FitData):
    """Zero- and few-shot detection with CLIP and Stable Diffusion: remembers prompts and a few normal images."""

    data: str = ""
    """`folder:PATH` or what `jaxad prepare` made, as for other systems; not needed with --shots 0 and --classes."""
    preset: CLIPFusionPreset = "clipfusion"
    """Defaults of --model: the published ones, one of its models alone, a baseline, or another Stable Diffusion."""
    shots: int = 0
    """Normal images of each category that are remembered; with 0 only the categories' names matter."""
    seed: int = 0
    """Seed of the draw of these images; with --reference-lists the number of the run."""
    classes: tuple[str, ...] | None = None
    """Names of the categories; those of the data if not given."""
    reference_lists: Path | None = None
    """Folder of published choices, CATEGORY/selected_samples_per_run.txt, in place of the draw; needs --holdout 0."""
    protocol: Protocol = "winclip"
    """Evaluation protocol in which the threshold is measured."""
    model: CLIPFusionConfig = field(default_factory=CLIPFusionConfig)
    train: ClassVar[None] = None
    system: ClassVar[str] = "clipfusion"

    @property
    def chosen_categories(self) -> tuple[str, ...] | None:
        return self.categories or self.classes


@dataclass(frozen=True, kw_only=True)
class FitAutoencoder(_FitImages):
    """Finetune Stable Diffusion's autoencoder, VLMDiff's first stage; leaves it in the workdir's folder autoencoder."""

    holdout: float = 0.1
    """Share of normal training images kept out, the same ones that `fit vlmdiff` keeps out for its threshold, which
    would be too low on images that the autoencoder knows; 0 for none."""
    preset: Preset = "paper"
    """Defaults of --model and --train: the published ones, or small ones for CPUs."""
    model: FirstStageConfig = field(default_factory=FirstStageConfig)
    train: FirstStageTrainConfig = field(default_factory=FirstStageTrainConfig)


@dataclass(frozen=True, kw_only=True)
class Caption(_UsableData):
    """Describe images by an image-text-to-text model (extra `caption`), in the layout of VLMDiff's published captions.

    Run the same command again to go on after an interruption.
    """

    model: str
    """Hub id or folder of the model, e.g. OpenGVLab/InternVL3-8B-hf; its code must be part of transformers."""
    out: Path
    """Where the folder `DATA_captions_MODEL_PROMPT` is made; chosen categories and splits have folders of their own."""
    prompt: str = "pd"
    """A published prompt: pd (describe), pa (look for defects) or coco; or a text of your own."""
    split: Literal["train", "test"] = "train"
    """Training images, all of them normal, or test images."""
    max_new_tokens: int = 1024
    """Longest caption."""
    batch_size: int = 8
    """Images at once."""
    keeps: ClassVar[str] = "finished captions"


@dataclass(frozen=True, kw_only=True)
class Evaluate(_UsableData):
    """Evaluate a checkpoint on labeled images: report.json and report.html."""

    checkpoint: Path
    """A workdir (its newest step) or one step's folder."""
    out: Path
    """Folder of the report."""
    protocol: Protocol = "exact-256"
    """How maps, masks and scores are made comparable; results of different protocols are not."""
    baseline: Path | None = None
    """Checkpoint of a detector to compare with, e.g. of `jaxad fit patch-bank`."""
    captions: Path | None = None
    """Captions of the test images in the published layout, a folder or file as `jaxad caption --split test` writes it,
    for a vlmdiff that takes captions at test time; those stored with a prepared data set if not given."""
    override: tuple[str, ...] = ()
    """Inference settings to change, e.g. `start_timestep=200 residual=cosine draws=4`."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it; of vlmdiff also of another network
    that is to compare image and reconstruction; of clipfusion `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
    batch_size: int = 16
    """Images at once."""


@dataclass(frozen=True)
class Predict(_Command):
    """Judge images with a checkpoint: predictions.jsonl and pictures.

    Images have no captions here; for a vlmdiff that takes captions at test time, "" stands for them.
    """

    images: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Images, or folders of images."""
    checkpoint: Path
    """A workdir (its newest step) or one step's folder."""
    out: Path
    """Folder of the results."""
    category: str = ""
    """Which category the images show, for its own threshold."""
    save: tuple[Save, ...] = ("overlay",)
    """Pictures to write for every image, at its own size."""
    map_format: Literal["npy", "tiff"] = "npy"
    """Format of the raw maps, 32-bit float."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it; of vlmdiff also of another network
    that is to compare image and reconstruction; of clipfusion `clip=SOURCE,diffusion=SOURCE`, or one of the two."""
    batch_size: int = 16
    """Images at once."""
    workers: int = 2
    """Threads that decode images."""


@dataclass(frozen=True, kw_only=True)
class Check(_Data):
    """Examine a data set: counts, sizes, modes, unreadable images, masks that do not fit, duplicates, leaks."""

    out: Path | None = None
    """Also write counts, sizes, modes and problems to this file, as JSON."""
    on_bad: ClassVar[Literal["stop", "skip"]] = "skip"


@dataclass(frozen=True)
class Prepare(_Command):
    """Check a benchmark's official files and store them in TFDS's format, once for all methods.

    NAME is anomaly_folder (a folder of your own), btad, coco_ad, mpdd, mvtec_ad, mvtec_loco, real_iad, real_iad_variety
    or visa. Without --source it says how to obtain the files and under which license; nothing is downloaded. Run the
    same command again to go on after an interruption.
    """

    name: Annotated[str, tyro.conf.Positional]
    """Name of the data set."""
    source: tuple[Path, ...] = ()
    """The extracted folder, a folder of the official archives, or these archives themselves."""
    data_dir: Path | None = None
    """Folder of prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    categories: tuple[str, ...] | None = None
    """Categories to prepare; all if not given."""
    size: int | None = None
    """Reduce images to this length of their shorter side, for sources too large to decode while training; the source's
    bytes are stored as they are if not given."""
    options: tuple[str, ...] = ()
    """Choices that the data set offers, as NAME=VALUE."""
    captions: Path | None = None
    """Folder or file of captions in VLMDiff's published layout, to store with the images."""
    workers: int = 2
    """Threads that read, check and resize."""
    partial: bool = False
    """Accept fewer images than there officially are."""
    verify: bool = True
    """Decode every image before anything is stored."""
    beam: tuple[str, ...] | None = None
    """Store by an Apache Beam pipeline with these options, e.g. `runner=DirectRunner` (extra `beam`)."""
    keeps: ClassVar[str] = "finished categories"


@dataclass(frozen=True)
class Demo(_Command):
    """Train, evaluate and report on real images that come with the `demo` extra; minutes on two cores."""

    out: Path
    """Folder for data, run and report."""
    steps: int = 80
    """Training steps; more are better and slower."""
    seed: int = 0
    """Seed of parameters, order and noise."""

    @property
    def run_folder(self) -> Path:
        return self.out / "run"


@dataclass(frozen=True)
class Convert(_Command):
    """Rewrite pretrained weights of any supported format as safetensors, with a manifest of where they came from."""

    source: Annotated[str, tyro.conf.Positional]
    """Weight file (.safetensors, .msgpack, .pth, .pt, .ckpt, .bin), folder, or id on the Hugging Face hub."""
    destination: Annotated[Path, tyro.conf.Positional]
    """Folder to write."""
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = "keep"
    """Type of all floating-point tensors."""
    license: str | None = None
    """Name of the license; read from the source's model card or LICENSE if not given."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    subfolder: str = ""
    """Folder within the source, such as `unet` in those of Stable Diffusion."""
    overwrite: bool = False
    """Replace a folder that convert has written before."""


@dataclass(frozen=True)
class Bench(_Command):
    """Time a part of jaxad on this machine."""

    what: Annotated[Literal["metrics", "input", "models", "clipfusion", "vlmdiff"], tyro.conf.Positional]
    """metrics: pixel metrics of ten million scores against an exact computation; input: images per second from disk to
    a batch on the device; models: forward pass of every pretrained network at its published size, random weights;
    clipfusion: latency and operations of CLIPFusion's prediction, random weights; vlmdiff: memory and operations of
    VLMDiff's prediction and of the training steps of its two stages, from compiled programs."""
    networks: tuple[str, ...] | None = None
    """models: only these, named as `jaxad models` names them."""
    dtype: Precision | None = None
    """models, clipfusion, vlmdiff: compute type, float32 if not given; clipfusion takes auto as well, the types that
    other commands compute in on this device, and does if not given."""
    batch_size: int = 1
    """models, clipfusion, and vlmdiff's prediction: images at once."""
    shots: tuple[int, ...] = (0, 1, 2, 4)
    """clipfusion: numbers of references."""
    preset: CLIPFusionPreset = "clipfusion"
    """clipfusion: the published setting, one of its models alone, or a baseline."""
    size: Literal["published", "one-pass", "tiny"] = "published"
    """clipfusion, vlmdiff: published; networks of a few channels; or, for clipfusion, the published networks with one
    state and one timestep."""
    devices: tuple[int, ...] = (1, 8)
    """vlmdiff: numbers of devices; the machine needs none of them to tell what they would hold."""
    programs: tuple[Literal["prediction", "training", "autoencoder"], ...] = ("prediction", "training", "autoencoder")
    """vlmdiff: only these; training is that of the diffusion model, autoencoder that of the first stage in float32."""
    micro_batches: tuple[int, ...] = (1, 4, 12)
    """vlmdiff: images that a device holds at once while training."""
    remat: tuple[Literal["on", "off"], ...] = ("on",)
    """vlmdiff: whether training computes activations again instead of keeping them."""
    count_only: bool = False
    """clipfusion, vlmdiff: count, run nothing; on a CPU vlmdiff's published size is only counted in any case."""


@dataclass(frozen=True)
class Models(_Command):
    """List the pretrained networks: parameters, the option that takes them, where their weights come from."""


DataCommand = _UsableData | Check
Fit = FitDPDiff | FitPatchBank | FitVLMDiff | FitCLIPFusion
Command = Demo | Fit | FitAutoencoder | Caption | Evaluate | Predict | Check | Prepare | Convert | Models | Bench
