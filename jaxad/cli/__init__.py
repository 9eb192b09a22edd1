"""The command line: dataclasses turned into flags by tyro; only the command that runs imports jax (DESIGN 4.8)."""

from __future__ import annotations

import argparse
import os
import sys
from typing import Annotated, Any, get_args

import tyro

from jaxad import __version__
from jaxad.cli.flags import (
    Bench,
    Caption,
    Check,
    Command,
    Convert,
    Demo,
    Evaluate,
    FitAutoencoder,
    FitCLIPFusion,
    FitDPDiff,
    FitPatchBank,
    FitVLMDiff,
    Models,
    Predict,
    Prepare,
    Preset,
    Save,
)
from jaxad.config import (
    CLIPFusionConfig,
    CLIPFusionPreset,
    DPDiffConfig,
    FirstStageConfig,
    FirstStageTrainConfig,
    PatchBankConfig,
    TrainConfig,
    VLMDiffConfig,
    VLMDiffPreset,
)
from jaxad.errors import JaxadError

_DESCRIPTION = (
    "Visual anomaly detection in JAX. `jaxad COMMAND --help` explains a command, `jaxad --version` prints the version."
)
_FIT = "Train a system on normal images, choose its threshold, and keep all in a workdir."


def parse(arguments: list[str]) -> Command:
    """The command that the arguments name.

    Raises:
        SystemExit: help was asked for (0), or the arguments do not fit (2); what to say has been printed.
    """
    if arguments[:1] == ["--version"]:
        print(f"jaxad {__version__}")
        sys.exit(0)
    if arguments[:1] == ["predict"]:
        arguments = ["predict", *_images_first(arguments[1:])]
    command = tyro.cli(_tree(_preset(arguments)), args=arguments, prog="jaxad", description=_DESCRIPTION)
    if isinstance(command, Predict) and not command.images:
        print("jaxad predict: no images given; name image files, or folders of them", file=sys.stderr)
        sys.exit(2)
    return command


def _tree(preset: str) -> Any:
    """All commands as a type for tyro; the preset supplies the defaults of what is not given."""
    required: Any = {"data": tyro.MISSING, "workdir": tyro.MISSING}

    def known(presets: Any) -> Any:
        """The preset where the system has it, else its first; the default of the others is not used."""
        return preset if preset in get_args(presets) else get_args(presets)[0]

    own = known(Preset)
    dpdiff = FitDPDiff(preset=own, model=DPDiffConfig.preset(own), train=TrainConfig.preset(own), **required)
    bank = FitPatchBank(preset=own, model=PatchBankConfig.preset(own), **required)
    own = known(VLMDiffPreset)
    vlmdiff = FitVLMDiff(preset=own, model=VLMDiffConfig.preset(own), train=VLMDiffConfig.training(own), **required)
    own = known(CLIPFusionPreset)
    fusion = FitCLIPFusion(preset=own, model=CLIPFusionConfig.preset(own), workdir=required["workdir"])
    own = known(Preset)
    settings = FirstStageConfig.preset(own), FirstStageTrainConfig.preset(own)
    autoencoder = FitAutoencoder(preset=own, model=settings[0], train=settings[1], **required)
    # Type checkers know `|` between plain types only, hence Any.
    fit_dpdiff: Any = Annotated[FitDPDiff, tyro.conf.subcommand("dpdiff", default=dpdiff)]
    demo: Any = Annotated[Demo, tyro.conf.subcommand("demo")]
    fit = (
        fit_dpdiff
        | Annotated[FitPatchBank, tyro.conf.subcommand("patch-bank", default=bank)]
        | Annotated[FitVLMDiff, tyro.conf.subcommand("vlmdiff", default=vlmdiff)]
        | Annotated[FitCLIPFusion, tyro.conf.subcommand("clipfusion", default=fusion)]
        | Annotated[FitAutoencoder, tyro.conf.subcommand("autoencoder", default=autoencoder)]
    )
    return (
        demo
        | Annotated[fit, tyro.conf.subcommand("fit", description=_FIT)]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Predict, tyro.conf.subcommand("predict")]
        | Annotated[Check, tyro.conf.subcommand("check")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
        | Annotated[Caption, tyro.conf.subcommand("caption")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Models, tyro.conf.subcommand("models")]
        | Annotated[Bench, tyro.conf.subcommand("bench")]
    )


def _preset(arguments: list[str]) -> str:
    """The preset that the arguments name, "paper" where they name none; tyro complains of one the system has not."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--preset", nargs="?")
    return early.parse_known_args(arguments)[0].preset or "paper"


def _images_first(arguments: list[str]) -> list[str]:
    """The words of `predict` with its images before its flags, wherever they stood."""
    images, flags, flag = [], [], ""
    for word in arguments:
        if word.startswith("-") and word != "-":
            flags.append(word)
            flag = "" if "=" in word else word
        elif flag == "--save" and word in get_args(Save):
            flags.append(word)
        elif flag and flag not in ("--save", "-h", "--help"):
            flags.append(word)
            flag = ""
        else:
            images.append(word)
    return [*images, *flags]


def main() -> None:
    """Entry point of `jaxad`: exit status 0, 1 for what a user can mend, 2 for wrong usage, 130 after Ctrl-C."""
    try:
        try:
            status = _run(parse(sys.argv[1:]))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as in `jaxad check ... | head`; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _run(command: Command) -> int:
    try:
        from jaxad.cli import commands

        commands.run(command)
    except BrokenPipeError:
        raise
    except (JaxadError, OSError) as error:
        print(f"jaxad: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\njaxad: stopped{_how_to_resume(command)}", file=sys.stderr)
        return 130
    return 0


def _how_to_resume(command: Command) -> str:
    """What to add to "stopped" where the same command goes on from what is there."""
    if command.keeps:
        return f"; run the same command again for the rest, {command.keeps} are kept"
    steps = () if command.run_folder is None else (command.run_folder / "checkpoints").glob("*")
    resumable = any(step.name.isdigit() for step in steps)
    return "; run the same command again to go on from the last checkpoint" if resumable else ""
