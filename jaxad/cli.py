"""The command line: dataclasses turned into flags by tyro; only the command that runs imports jax (DESIGN 4.8)."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxad.config import DPDiffConfig, PatchBankConfig, TrainConfig
from jaxad.errors import JaxadError

Protocol = Literal["exact-256", "exact-448", "diad", "ader", "dinomaly", "winclip"]
Save = Literal["overlay", "map", "mask"]


@dataclass(frozen=True)
class _FitData:
    data: str
    """`folder:PATH` of categories in MVTec layout, or `demo`."""
    workdir: Path
    """Folder of the run; run the same command again to resume it."""
    preset: Literal["paper", "small"] = "paper"
    """Defaults of all other settings: the published ones, or small ones for CPUs."""
    categories: tuple[str, ...] | None = None
    """Categories to use; all if not given."""
    image_size: int | None = None
    """Side of the square input in pixels; short for --model.image-size."""
    holdout: float = 0.1
    """Share of normal training images kept out for the threshold, at least 5 per category; 0 for none."""
    false_alarm: float = 0.01
    """Share of normal images allowed above the threshold."""
    protocol: Protocol = "exact-256"
    """Evaluation protocol in which the threshold is measured."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images: stop before training, or leave them out."""
    workers: int = 2
    """Threads that decode images."""


@dataclass(frozen=True)
class FitDPDiff(_FitData):
    """Train DPDiff-AD: one diffusion model, conditioned on prototypes, for all categories."""

    model: DPDiffConfig = field(default_factory=DPDiffConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    system: tyro.conf.Suppress[str] = "dpdiff"


@dataclass(frozen=True)
class FitPatchBank(_FitData):
    """Fill a nearest-patch memory bank (PatchCore's scoring), the baseline."""

    model: PatchBankConfig = field(default_factory=PatchBankConfig)
    train: tyro.conf.Suppress[None] = None
    system: tyro.conf.Suppress[str] = "patch-bank"


@dataclass(frozen=True)
class Fit:
    """Train a system on normal images, choose its threshold, and keep all in a workdir."""

    run: Annotated[
        Annotated[FitDPDiff, tyro.conf.subcommand("dpdiff")]
        | Annotated[FitPatchBank, tyro.conf.subcommand("patch-bank")],
        tyro.conf.arg(name=""),
    ]


@dataclass(frozen=True)
class Evaluate:
    """Evaluate a checkpoint on labelled images: report.json and report.html."""

    checkpoint: Path
    """A workdir (its newest step) or one step's folder."""
    data: str
    """`folder:PATH` of categories in MVTec layout, or `demo`."""
    out: Path
    """Folder of the report."""
    protocol: Protocol = "exact-256"
    """How maps, masks and scores are made comparable; results of different protocols are not."""
    baseline: Path | None = None
    """Checkpoint of a detector to compare with, e.g. of `jaxad fit patch-bank`."""
    categories: tuple[str, ...] | None = None
    """Categories to evaluate; all if not given."""
    override: tuple[str, ...] = ()
    """Inference settings to change, e.g. `start_timestep=200 residual=cosine draws=4`."""
    backbone: str | None = None
    """Folder or id to load the backbone from, where the checkpoint does not hold it."""
    on_bad: Literal["stop", "skip"] = "stop"
    """What to do about unusable images: stop, or leave them out and say so in the report."""
    batch_size: int = 16
    """Images at once."""
    workers: int = 2
    """Threads that decode images."""


@dataclass(frozen=True)
class Predict:
    """Judge images with a checkpoint: predictions.jsonl and pictures."""

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
    """Folder or id to load the backbone from, where the checkpoint does not hold it."""
    batch_size: int = 16
    """Images at once."""
    workers: int = 2
    """Threads that decode images."""


@dataclass(frozen=True)
class Check:
    """Examine a data set: counts, unreadable files, masks that do not fit, duplicates, leaks."""

    data: str
    """`folder:PATH` of categories in MVTec layout, or `demo`."""
    categories: tuple[str, ...] | None = None
    """Categories to examine; all if not given."""
    json: Path | None = None
    """Also write counts and problems to this file."""
    workers: int = 2
    """Threads that decode images."""


@dataclass(frozen=True)
class Demo:
    """Train, evaluate and report on real images that come with the `demo` extra; minutes on two cores."""

    out: Path
    """Folder for data, run and report."""
    steps: int = 150
    """Training steps; more are better and slower."""
    seed: int = 0
    """Seed of parameters, order and noise."""


@dataclass(frozen=True)
class Bench:
    """Time a part of jaxad on this machine."""

    what: Annotated[Literal["metrics"], tyro.conf.Positional]
    """metrics: pixel metrics of ten million scores against an exact computation."""


Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Fit, tyro.conf.subcommand("fit")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
    | Annotated[Check, tyro.conf.subcommand("check")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


def parse(arguments: list[str]) -> Demo | FitDPDiff | FitPatchBank | Evaluate | Predict | Check | Bench:
    """The command that the arguments name. A preset sets the defaults of all flags that are not given.

    Raises:
        SystemExit: help was asked for, or the arguments do not fit; tyro has printed why.
    """
    if arguments[:1] == ["fit"]:
        fit = (
            Annotated[FitDPDiff, tyro.conf.subcommand("dpdiff", default=_preset(FitDPDiff, arguments))]
            | Annotated[FitPatchBank, tyro.conf.subcommand("patch-bank", default=_preset(FitPatchBank, arguments))]
        )
        return tyro.cli(fit, args=arguments[1:], prog="jaxad fit", description=Fit.__doc__)  # type: ignore[arg-type]
    return tyro.cli(Command, args=arguments, prog="jaxad", description=_DESCRIPTION)  # type: ignore[arg-type]


_DESCRIPTION = "Visual anomaly detection in JAX. `jaxad COMMAND --help` tells the flags of a command."


def _preset(command: type[FitDPDiff] | type[FitPatchBank], arguments: list[str]):
    """Defaults of a fit command under the preset that the arguments name."""
    words = [word.split("=", 1) for word in arguments]
    given = [
        (word[1] if len(word) == 2 else (words[i + 1 : i + 2] or [[""]])[0][0])
        for i, word in enumerate(words)
        if word[0] == "--preset"
    ]
    name = given[-1] if given and given[-1] in ("paper", "small") else "paper"
    settings = {"model": (DPDiffConfig if command is FitDPDiff else PatchBankConfig).preset(name)}
    if command is FitDPDiff:
        settings["train"] = TrainConfig.preset(name)
    return command(data=tyro.MISSING, workdir=tyro.MISSING, preset=name, **settings)


def main() -> None:
    """Entry point of `jaxad`."""
    command = parse(sys.argv[1:])
    from jaxad import commands

    try:
        commands.run(command)
    except JaxadError as error:
        print(f"jaxad: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("jaxad: stopped; run the same command again to go on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
