"""What the tables of VLMDiff share: the autoencoder of a data set, training on captions, evaluation under `diad`.

Not an experiment itself; `vlmdiff_table9.py` and its neighbors call `Table.row` for every row of theirs. Nothing is
trained twice: tables that are given the same --out share autoencoders and runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

import jaxad
from experiments.rows import Lines, Mean, combined, slug
from experiments.vlmdiff.caption_rows import described
from jaxad.config import FirstStageConfig, FirstStageTrainConfig
from jaxad.errors import ConfigError
from jaxad.io.progress import Reporter
from jaxad.models.convnets.lpips import holds_lpips
from jaxad.models.stable_diffusion.checkpoints import find_part
from jaxad.models.stable_diffusion.untrained import is_random
from jaxad.training.autoencoder.trainer import fit_autoencoder

PROTOCOL = "diad"
METRICS = ("image_auroc", "pixel_auroc", "aupro")
"""Columns of the supplement's tables, macro means over the categories; published values stand in this order."""
EPOCHS, SHORT_EPOCHS = 300, 100
SHORT = ("real_iad", "coco_ad")
"""Data sets that are trained for 100 epochs, not 300, and whose autoencoder for 10, not 100 (SPEC 1.5, 1.6)."""
COCO_SPLITS = ("coco_ad", "coco_ad/all-split_1", "coco_ad/all-split_2", "coco_ad/all-split_3")
"""The four splits of COCO-AD, as `jaxad prepare coco_ad --options split=split_K` names them."""

Method = Literal["vlmdiff", "diad"]
TITLES: Mapping[Method, str] = {"vlmdiff": "VLMDiff", "diad": "DiAD"}


@dataclass(frozen=True)
class RowOptions:
    """Data, networks and length of the runs of a table."""

    out: Path = Path("runs/vlmdiff")
    """Folder of autoencoders, runs and reports; tables with the same folder share them."""
    data: tuple[str, ...] = ()
    """Data sets in place of the published ones: prepared ones, or `folder:PATH` of categories in MVTec layout."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    captions: Path | None = None
    """Folder of caption folders, {data}_captions_{vlm}_pd as `jaxad caption` and VLMDiff's authors write them; captions
    stored with a prepared data set if not given."""
    vlm: str = "internvl"
    """Captioner, by the beginning of its name in the names of these folders."""
    preset: Literal["paper", "small"] = "paper"
    """Defaults of model and training."""
    methods: tuple[Method, ...] = ("vlmdiff",)
    """VLMDiff, or DiAD as well: without captions, ResNet-50 compares, another batch for the autoencoder."""
    stable_diffusion: str | None = None
    """Folder, file or hub id of Stable Diffusion 1.5; the preset's if not given."""
    autoencoder: str = "finetune"
    """`finetune` it on each data set (paper), `pretrained` for Stable Diffusion's as it is, or a finetuned one's folder
    or file for all data sets."""
    autoencoder_start: str | None = None
    """Where finetuning starts: latent diffusion's kl-f8 .ckpt (paper), which brings LPIPS; Stable Diffusion's own
    autoencoder if not given, which then needs `vgg` or `--no-perceptual`."""
    autoencoder_steps: int | None = None
    """Optimizer steps of finetuning; if not given those of 100 epochs, or 10 for Real-IAD and COCO-AD."""
    perceptual: bool = True
    """Finetune with LPIPS, where the preset has it."""
    vgg: str | None = None
    """Weights of VGG16 for LPIPS, where `autoencoder_start` does not bring them."""
    lpips: str | None = None
    """Weights of LPIPS's channels, with `vgg`."""
    backbone: str | None = None
    """Network that compares image and reconstruction; the preset's if not given."""
    image_size: int | None = None
    """Side of the square input in pixels; the preset's if not given."""
    epochs: int | None = None
    """Epochs of the diffusion model in place of 300, or of the 100 of Real-IAD and COCO-AD; a row that is published
    with fewer takes the same share of these."""
    steps: int | None = None
    """Optimizer steps in place of `epochs`."""
    seeds: tuple[int, ...] = (1,)
    """Every row is trained once for each (paper: 1); more than one gives mean and standard deviation."""


class Table:
    """Trains and evaluates rows and prints ours beside the published ones.

    Attributes:
        rows: mean over the seeds of every metric, 0..1, by row.
        reports: what report.json holds, by row, one for each seed.
    """

    def __init__(self, options: RowOptions, published: Mapping[str, Sequence[float]], metrics=METRICS):
        self.rows: dict[str, Mean] = {}
        self.reports: dict[str, list[dict[str, Any]]] = {}
        self._options, self._metrics = options, metrics
        self._reporter = Reporter()
        self._datasets: dict[str, jaxad.data.DataSet] = {}
        self._autoencoders: dict[tuple[str, Method], str] = {}
        self._lines = Lines(metrics, published, width=32)

    def row(
        self, name: str, data: str, *, method: Method = "vlmdiff", epochs: int | None = None, vlm: str = ""
    ) -> Mean:
        """Trains (or resumes) one row for each seed, evaluates and prints it; arguments as `train` takes them."""
        return self.evaluate(name, data, self.train(data, method=method, epochs=epochs, vlm=vlm), vlm=vlm)

    def train(self, data: str, *, method: Method = "vlmdiff", epochs: int | None = None, vlm: str = "") -> list[Path]:
        """Trains a model for each seed; what is finished is only looked up.

        Args:
            data: name of the data set.
            method: VLMDiff or DiAD.
            epochs: as published; those of the data set if not given.
            vlm: captioner; that of the options if not given.

        Returns:
            The workdirs.

        Raises:
            ConfigError: the autoencoder is to be finetuned with LPIPS, and no option says where that is.
        """
        options, vlm = self._options, vlm or self._options.vlm
        if (data, method) not in self._autoencoders:
            check_lpips(options)
        if method == "vlmdiff":
            source, captions = self._described(data, vlm, "train")
            kind, provenance = f"{method}-{vlm}", {"captions": captions}
        else:
            kind, source, provenance = method, self._dataset(data).train, {}
        config = self._config(data, method)
        training = jaxad.VLMDiffConfig.training(options.preset)
        steps = self.steps(data, len(source), training, epochs)
        workdirs = []
        for seed in options.seeds:
            workdir = self._folder(data) / f"{kind}-{steps}-steps" / f"seed-{seed}"
            jaxad.fit(
                jaxad.VLMDiff.create(config, key=jax.random.key(seed)),
                source,
                dataclasses.replace(training, steps=steps, seed=seed),
                workdir=workdir,
                protocol=PROTOCOL,
                provenance=provenance,
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
        **changes: Any,
    ) -> Mean:
        """Evaluates a row's models on the test images, prints it and writes its reports.

        Args:
            name: of the row, as in the published table.
            data, vlm: as for `train`; test images have captions where the model asks for them.
            workdirs: of the models, one for each seed.
            backbone: network that compares in place of the models' own.
            changes: fields of VLMDiffConfig that differ at inference.
        """
        dataset, options, captions = self._dataset(data), self._options, {}
        self.reports[name] = []
        for seed, workdir in zip(options.seeds, workdirs, strict=True):
            restored = jaxad.restore(workdir, **changes)
            detector: Any = restored.detector
            if backbone is not None:
                detector = detector.with_backbone(backbone)
            if detector.inputs.captions == "always" and not captions:
                test, record = self._described(data, vlm or options.vlm, "test")
                dataset, captions = dataclasses.replace(dataset, test=test), {"test_captions": record}
            with self._reporter.images(name, len(dataset.test)) as progress:
                provenance = {**{part: restored.meta[part] for part in ("train", "data", "step")}, **captions}
                report = jaxad.evaluate(detector, dataset, protocol=PROTOCOL, provenance=provenance, progress=progress)
            jaxad.write_report(options.out / "reports" / slug(name) / f"seed-{seed}", report)
            self.reports[name].append(report)
        return self.show(name, [report["mean"] for report in self.reports[name]])

    def show(self, name: str, means: Sequence[Mapping[str, float | None]]) -> Mean:
        """Prints a row, ours beside the published one, from the means of every seed."""
        self.rows[name] = self._lines.show(name, means)
        return self.rows[name]

    def average(self, name: str, rows: Sequence[str]) -> Mean:
        """Prints the mean of rows as a row of its own."""
        columns = {metric: [self.rows[row][metric] for row in rows] for metric in self._metrics}
        return self.show(name, [{metric: combined(values, np.mean) for metric, values in columns.items()}])

    def steps(self, data: str, images: int, training: jaxad.TrainConfig, epochs: int | None = None) -> int:
        """Optimizer steps of a row that is published with so many epochs, on a data set of so many images."""
        usual = SHORT_EPOCHS if _short(data) else EPOCHS
        if self._options.steps is not None:
            whole = self._options.steps
        elif self._options.epochs is None and self._options.preset == "small":
            whole = training.steps
        else:
            whole = (self._options.epochs or usual) * images / (training.batch_size * training.accumulate)
        return max(1, math.ceil(whole * (epochs or usual) / usual))

    def _config(self, data: str, method: Method) -> jaxad.VLMDiffConfig:
        options = self._options
        fields = ("stable_diffusion", "backbone", "image_size")
        changes: dict[str, Any] = {
            name: getattr(options, name) for name in fields if getattr(options, name) is not None
        }
        changes["captions"] = "never" if method == "diad" else "always" if data.startswith("coco_ad") else "train"
        preset = "diad" if method == "diad" and options.preset == "paper" else options.preset
        config = jaxad.VLMDiffConfig.preset(preset, **changes)
        if options.autoencoder == "pretrained":
            return config
        given = options.autoencoder if options.autoencoder != "finetune" else self._finetuned(data, method, config)
        return dataclasses.replace(config, autoencoder=given)

    def _finetuned(self, data: str, method: Method, config: jaxad.VLMDiffConfig) -> str:
        """The folder of the autoencoder that is finetuned on the data set, once for all rows."""
        if (data, method) in self._autoencoders:
            return self._autoencoders[data, method]
        options, source = self._options, self._dataset(data).train
        start = options.autoencoder_start or config.stable_diffusion
        loss: dict[str, Any] = {"source": start, "image_size": config.image_size, "vgg": options.vgg}
        loss |= {"lpips": options.lpips} | ({} if options.perceptual else {"perceptual_weight": 0.0})
        train = FirstStageTrainConfig.preset(options.preset, **({"batch_size": 4} if method == "diad" else {}))
        train = dataclasses.replace(
            train, epochs=10 if _short(data) else 100, steps=options.autoencoder_steps or train.steps
        )
        name = "autoencoder-diad" if method == "diad" else "autoencoder"
        run = fit_autoencoder(
            source,
            FirstStageConfig.preset(options.preset, **loss),
            train,
            workdir=self._folder(data) / name,
            reporter=self._reporter,
        )
        before, after = run.errors
        self._reporter.say(f"{data}: reconstruction error {before:.1f} before finetuning, {after:.1f} after (of 255)")
        self._autoencoders[data, method] = str(run.folder)
        return str(run.folder)

    def _described(
        self, data: str, vlm: str, split: Literal["train", "test"]
    ) -> tuple[jaxad.data.ImageSource, dict[str, Any]]:
        """The images of a split with their captions, and what reports say of these."""
        source = getattr(self._dataset(data), split)
        return described(source, self._options.captions, data, vlm, split, self._reporter)

    def _dataset(self, data: str) -> jaxad.data.DataSet:
        if data not in self._datasets:
            config = jaxad.DataConfig(holdout=0.0)
            self._datasets[data] = jaxad.data.load(data, self._options.data_dir, config=config)
        return self._datasets[data]

    def _folder(self, data: str) -> Path:
        return self._options.out / slug(data)


def check_lpips(options: RowOptions) -> None:
    """Before any work: whether finetuning knows where its LPIPS is.

    Raises:
        ConfigError: it does not; names the options that say it.
    """
    weight = FirstStageConfig.preset(options.preset).perceptual_weight
    if options.autoencoder != "finetune" or not options.perceptual or not weight or options.vgg is not None:
        return
    start = options.autoencoder_start
    if start is None or is_random(start) or not holds_lpips(find_part(start, "vae")):
        raise ConfigError(
            f"finetuning the autoencoder needs LPIPS, which {start or 'that of Stable Diffusion'} does not bring; give "
            "--autoencoder-start kl-f8.ckpt (paper), or --vgg and --lpips, torchvision's VGG16 and vgg.pth of the "
            "package lpips, or --no-perceptual to do without; or --autoencoder with a finetuned one"
        )


def _short(data: str) -> bool:
    return data.partition("/")[0] in SHORT
