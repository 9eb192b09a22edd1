"""What the tables of VLMDiff share: the autoencoder of a data set, training on captions, evaluation under `diad`.

Not an experiment itself; `table9.py` and its neighbors call `Table.row` for each of their rows. Nothing is trained
twice: tables with the same --out share autoencoders and runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

import jaxad
from experiments.records import Printed, keep, run_record
from experiments.rows import DataOptions, Lines, Mean, slug
from experiments.vlmdiff.caption_rows import described
from jaxad.config import FirstStageConfig, FirstStageTrainConfig
from jaxad.errors import ConfigError
from jaxad.inference.evaluation import score
from jaxad.io.progress import Reporter
from jaxad.models.convnets.lpips import holds_lpips
from jaxad.models.stable_diffusion.checkpoints import find_part
from jaxad.models.stable_diffusion.untrained import is_random
from jaxad.report.comparison.methods import combined
from jaxad.training.autoencoder.trainer import fit_autoencoder

PROTOCOL = "diad"
METRICS = ("image_auroc", "pixel_auroc", "aupro")
"""Columns of the supplement's tables, macro means over the categories; published values stand in this order."""
EPOCHS, SHORT_EPOCHS = 300, 100
SHORT = ("real_iad", "coco_ad")
"""Data sets with 100 published epochs instead of 300; their autoencoders get 10 instead of 100 (nothing published)."""
COCO_SPLITS = ("coco_ad", "coco_ad/all-split_1", "coco_ad/all-split_2", "coco_ad/all-split_3")
"""The four splits of COCO-AD, as `jaxad prepare coco_ad --options split=split_K` names them."""

DetectorName = Literal["vlmdiff", "diad"]
TITLES: Mapping[DetectorName, str] = {"vlmdiff": "VLMDiff", "diad": "DiAD"}


@dataclass(frozen=True)
class RowOptions(DataOptions):
    """Data, networks and length of the runs of a table."""

    out: Path = Path("runs/vlmdiff")
    """Folder of autoencoders, runs and reports; tables with the same folder share them."""
    data: tuple[str, ...] = ()
    """Data sets in place of the published ones: prepared ones, or `folder:PATH` of categories in MVTec layout."""
    captions: Path | None = None
    """Folder of caption folders, {data}_captions_{vlm}_pd as `jaxad caption` and VLMDiff's authors write them; the
    captions stored with a prepared data set if not given."""
    vlm: str = "internvl"
    """Captioner: how its name begins in the names of these folders."""
    preset: Literal["paper", "small"] = "paper"
    """Defaults of detector and training."""
    detectors: tuple[DetectorName, ...] = ("vlmdiff",)
    """VLMDiff, DiAD or both; DiAD has no captions, compares by ResNet-50, finetunes its autoencoder in batches of 4."""
    stable_diffusion: str | None = None
    """Folder, file or hub id of Stable Diffusion 1.5; the preset's if not given."""
    autoencoder: str = "finetune"
    """`finetune` it on each data set as published, `pretrained` for Stable Diffusion's as it is, or the folder or file
    of a finetuned one for all data sets."""
    autoencoder_start: str | None = None
    """Where finetuning starts: latent diffusion's kl-f8 .ckpt as published, which brings LPIPS; Stable Diffusion's own
    autoencoder if not given, which needs `--vgg` or `--no-perceptual`."""
    autoencoder_steps: int | None = None
    """Optimizer steps of finetuning; if not given those of 100 epochs, or 10 for Real-IAD and COCO-AD."""
    perceptual: bool = True
    """Finetune with LPIPS, if the preset has it."""
    vgg: str | None = None
    """Weights of VGG16 for LPIPS, if `--autoencoder-start` does not bring them."""
    lpips: str | None = None
    """Weights of LPIPS's channels, with `--vgg`."""
    backbone: str | None = None
    """Network that compares image and reconstruction; the preset's if not given."""
    image_size: int | None = None
    """Side of the square input in pixels; the preset's if not given."""
    epochs: int | None = None
    """Epochs of the diffusion model in place of 300, or of the 100 of Real-IAD and COCO-AD; a row with fewer published
    epochs takes the same share of these."""
    steps: int | None = None
    """Optimizer steps in place of `--epochs`."""
    seeds: tuple[int, ...] = (1,)
    """Each row is trained once for each of them, the published one is 1; more than one gives mean and standard
    deviation."""


class Table:
    """Trains and evaluates rows and prints ours beside the published ones; records lie in --out/reports.

    Args:
        options: of the command line.
        published: percent by row, in the order of `metrics`.
        source: table that they are from.
        metrics: the columns.

    Attributes:
        rows: mean over the seeds of each metric, 0..1, by row.
        reports: contents of report.json by row, one for each seed.
    """

    def __init__(
        self, options: RowOptions, published: Mapping[str, Sequence[float]], source: str = "", metrics=METRICS
    ):
        self.rows: dict[str, Mean] = {}
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self._options, self._metrics = options, metrics
        self._reporter = Reporter()
        self._datasets: dict[str, jaxad.data.DataSet] = {}
        self._autoencoders: dict[tuple[str, DetectorName], str] = {}
        self._printed = Printed(f"VLMDiff, {source}", PROTOCOL, metrics, published)
        self._lines = Lines(self._printed, width=32)

    def row(
        self, name: str, data: str, *, detector: DetectorName = "vlmdiff", epochs: int | None = None, vlm: str = ""
    ) -> Mean:
        """Trains (or resumes) one row for each seed, evaluates and prints it; arguments as `train` takes them."""
        return self.evaluate(name, data, self.train(data, detector=detector, epochs=epochs, vlm=vlm), vlm=vlm)

    def train(
        self, data: str, *, detector: DetectorName = "vlmdiff", epochs: int | None = None, vlm: str = ""
    ) -> list[Path]:
        """Trains a detector for each seed; finished runs are only looked up.

        Args:
            data: name of the data set.
            detector: VLMDiff or DiAD.
            epochs: the published number; that of the data set if not given.
            vlm: captioner; that of the options if not given.

        Returns:
            The workdirs.

        Raises:
            ConfigError: the autoencoder is to be finetuned with LPIPS, and no option says where to find it.
        """
        options, vlm = self._options, vlm or self._options.vlm
        if (data, detector) not in self._autoencoders:
            check_lpips(options)
        if detector == "vlmdiff":
            source, captions = self._described(data, vlm, "train")
            kind, provenance = f"{detector}-{vlm}", {"captions": captions}
        else:
            kind, source, provenance = detector, self._dataset(data).train, {}
        config = self._config(data, detector)
        steps = self.steps(data, len(source), jaxad.VLMDiffConfig.training(options.preset), epochs)
        workdirs = []
        for seed in options.seeds:
            workdir = self._folder(data) / f"{kind}-{steps}-steps" / f"seed-{seed}"
            jaxad.fit(
                jaxad.VLMDiff.create(config, key=jax.random.key(seed)),
                source,
                jaxad.VLMDiffConfig.training(options.preset, steps=steps, seed=seed),
                workdir=workdir,
                protocol=PROTOCOL,
                provenance={**provenance, "preset": options.preset, "holdout": 0.0},
                reporter=self._reporter,
            )
            workdirs.append(workdir)
        return workdirs

    def evaluate(
        self,
        name: str,
        data: str,
        workdirs: Sequence[Path],
        *,
        vlm: str = "",
        backbone: str | None = None,
        stages: tuple[int, ...] | None = None,
        **changes: Any,
    ) -> Mean:
        """Evaluates a row's detectors on the test images, prints the row and writes its reports.

        Args:
            name: of the row, as in the published table.
            data, vlm: as for `train`; test images have captions if the detector asks for them.
            workdirs: of the detectors, one for each seed.
            backbone: network that compares in place of the detectors' own.
            stages: of that network, if it is convolutional; None for the usual ones.
            changes: fields of VLMDiffConfig that differ at inference.
        """
        dataset, options, captions = self._dataset(data), self._options, {}
        self.reports[name] = []
        for seed, workdir in zip(options.seeds, workdirs, strict=True):
            restored = jaxad.restore(workdir, **changes)
            detector: Any = restored.detector
            if backbone is not None:
                detector = detector.with_backbone(backbone, stages)
            if detector.inputs.captions == "always" and not captions:
                test, record = self._described(data, vlm or options.vlm, "test")
                dataset, captions = dataclasses.replace(dataset, test=test), {"test_captions": record}
            with self._reporter.images(name, len(dataset.test)) as progress:
                scored = score(detector, dataset, protocol=PROTOCOL, progress=progress)
            provenance = {"row": name, "preset": options.preset, **run_record(restored.meta), **captions}
            kept = options.out / "reports" / slug(name) / f"seed-{seed}"
            published = self._printed.row(name, data)
            self.reports[name].append(keep(kept, scored, dataset, published=published, provenance=provenance))
        means = [report["mean"] for report in self.reports[name]]
        return self.show(name, means, data=data, reports=self.reports[name])

    def show(self, name: str, means: Sequence[Mapping[str, float | None]], **about: Any) -> Mean:
        """Prints a row, ours beside the published one, from the means of each seed; `about` as `Lines.show` has it."""
        self.rows[name] = self._lines.show(name, means, **about)
        return self.rows[name]

    def average(self, name: str, rows: Sequence[str]) -> Mean:
        """Prints the mean of rows as a row of its own."""
        columns = {metric: [self.rows[row][metric] for row in rows] for metric in self._metrics}
        return self.show(name, [{metric: combined(values) for metric, values in columns.items()}])

    def steps(self, data: str, images: int, training: jaxad.TrainConfig, epochs: int | None = None) -> int:
        """Optimizer steps of a row with that number of published epochs, on a data set of so many images."""
        usual, options = SHORT_EPOCHS if _short(data) else EPOCHS, self._options
        epochs = epochs or usual
        if options.steps is None and (options.epochs is not None or options.preset != "small"):
            share = (options.epochs or usual) * epochs / usual
            return dataclasses.replace(training, steps=None, epochs=share).counted(images).last_step
        return max(1, math.ceil((options.steps or training.last_step) * epochs / usual))

    def _config(self, data: str, detector: DetectorName) -> jaxad.VLMDiffConfig:
        options = self._options
        fields = ("stable_diffusion", "backbone", "image_size")
        changes: dict[str, Any] = {
            name: getattr(options, name) for name in fields if getattr(options, name) is not None
        }
        changes["captions"] = "never" if detector == "diad" else "always" if data.startswith("coco_ad") else "train"
        preset = "diad" if detector == "diad" and options.preset == "paper" else options.preset
        config = jaxad.VLMDiffConfig.preset(preset, **changes)
        if options.autoencoder == "pretrained":
            return config
        given = options.autoencoder if options.autoencoder != "finetune" else self._finetuned(data, detector, config)
        return dataclasses.replace(config, autoencoder=given)

    def _finetuned(self, data: str, detector: DetectorName, config: jaxad.VLMDiffConfig) -> str:
        """The folder of the autoencoder finetuned on the data set, once for all rows."""
        if (data, detector) in self._autoencoders:
            return self._autoencoders[data, detector]
        options, source = self._options, self._dataset(data).train
        start = options.autoencoder_start or config.stable_diffusion
        loss: dict[str, Any] = {"source": start, "image_size": config.image_size, "vgg": options.vgg}
        loss |= {"lpips": options.lpips} | ({} if options.perceptual else {"perceptual_weight": 0.0})
        changes: dict[str, Any] = {"batch_size": 4} if detector == "diad" else {}
        if options.autoencoder_steps:
            changes["steps"] = options.autoencoder_steps
        elif options.preset != "small" and _short(data):
            changes["epochs"] = 10
        train = FirstStageTrainConfig.preset(options.preset, **changes)
        name = "autoencoder-diad" if detector == "diad" else "autoencoder"
        run = fit_autoencoder(
            source,
            FirstStageConfig.preset(options.preset, **loss),
            train,
            workdir=self._folder(data) / name,
            reporter=self._reporter,
        )
        before, after = run.errors
        self._reporter.say(f"{data}: reconstruction error {before:.1f} before finetuning, {after:.1f} after (of 255)")
        self._autoencoders[data, detector] = str(run.folder)
        return str(run.folder)

    def _described(
        self, data: str, vlm: str, split: Literal["train", "test"]
    ) -> tuple[jaxad.data.ImageSource, dict[str, Any]]:
        """The images of a split with their captions, and what reports say of these."""
        source = getattr(self._dataset(data), split)
        return described(source, self._options.captions, data, vlm, split, self._reporter)

    def _dataset(self, data: str) -> jaxad.data.DataSet:
        if data not in self._datasets:
            self._datasets[data] = self._options.load(data)
        return self._datasets[data]

    def _folder(self, data: str) -> Path:
        return self._options.out / slug(data)


def check_lpips(options: RowOptions) -> None:
    """Checks before any work that finetuning can find its LPIPS.

    Raises:
        ConfigError: it cannot; the message names the options that help.
    """
    weight = FirstStageConfig.preset(options.preset).perceptual_weight
    if options.autoencoder != "finetune" or not options.perceptual or not weight or options.vgg is not None:
        return
    start = options.autoencoder_start
    if start is None or is_random(start) or not holds_lpips(find_part(start, "vae")):
        raise ConfigError(
            f"finetuning the autoencoder needs LPIPS, which {start or 'that of Stable Diffusion'} does not bring; give "
            "--autoencoder-start kl-f8.ckpt as published, or --vgg and --lpips with torchvision's VGG16 and vgg.pth of "
            "the package lpips, or --no-perceptual to do without, or --autoencoder with a finetuned one"
        )


def _short(data: str) -> bool:
    return data.partition("/")[0] in SHORT
