"""Captions of the images that a command reads: attached from files, their absence counted (SPEC 1.7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxad import cli_flags as cli
from jaxad.command_checks import load_data
from jaxad.errors import ConfigError
from jaxad.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import DataSet, ImageSource
    from jaxad.detector import Detector


def problems(command: cli.FitVLMDiff) -> list[str]:
    """Everything about captions for training that cannot work."""
    if command.captions is not None and command.model.captions == "never":
        return [f"--captions {command.captions}: not used with --model.captions never, which DiAD's preset has"]
    return []


def load(command: cli.FitVLMDiff, reporter: Reporter) -> tuple[DataSet, dict[str, Any]]:
    """The data with the captions of `--captions`, and what to record of those of the training images.

    Raises:
        DataError: unusable data, or captions that do not fit the images.
    """
    dataset = load_data(command, command.holdout)
    if command.model.captions == "never" or (command.model.captions == "train" and command.model.trained):
        return dataset, {"captions": {"source": None, "images": 0, "missing": 0}}
    train, holdout = (described(part, command.captions, "train") for part in (dataset.train, dataset.holdout))
    record = caption_record(train, command.captions, "train", reporter)
    return dataclasses.replace(dataset, train=train, holdout=holdout), {"captions": record}


def described(source: ImageSource, captions: Path | None, split: Literal["train", "test"]) -> ImageSource:
    """The images with the captions of a folder or file; with those stored with them where `captions` is None.

    Raises:
        DataError: captions that cannot be read, two of one image, or another order than that of the images.
    """
    from jaxad.data.captions import Captions, with_captions

    return source if captions is None else with_captions(source, Captions.load(captions, split))


def caption_record(
    source: ImageSource, captions: Path | None, split: Literal["train", "test"], reporter: Reporter
) -> dict[str, Any]:
    """What reports say of the captions of `source`: where they are from, and how many images have none, with a warning.

    Returns:
        "source" (None for those stored with the images), "images", "missing".
    """
    missing = sum(not record.caption for record in source.records)
    if missing:
        reporter.warn([f'{missing} of {len(source)} {split} images have no caption; "" stands for it'])
    return {"source": None if captions is None else str(captions), "images": len(source), "missing": missing}


def described_test(
    test: ImageSource, captions: Path | None, detectors: Sequence[Detector], reporter: Reporter
) -> tuple[ImageSource, dict[str, Any]]:
    """The test images as `detectors` want them, and what reports say of it: "test_captions" where one wants captions.

    Raises:
        ConfigError: captions are given that no detector takes.
        DataError: captions that do not fit the images.
    """
    if not any(takes_captions(detector) for detector in detectors):
        if captions is not None:
            raise ConfigError(
                f"--captions {captions}: this detector takes no captions at test time; a VLMDiff does that was trained "
                "with --model.captions always, or with --override captions=always"
            )
        return test, {}
    test = described(test, captions, "test")
    return test, {"test_captions": caption_record(test, captions, "test", reporter)}


def takes_captions(detector: Detector) -> bool:
    """Whether captions condition the detector at test time."""
    return getattr(detector.config, "captions", None) == "always"
