"""Captions of the images that a command reads: attached from files, their absence counted (SPEC 1.7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxad.cli import flags as cli
from jaxad.cli.checks import load_data
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import DataSet, ImageSource
    from jaxad.data.captions.attach import Captions
    from jaxad.detector import Detector
    from jaxad.types import Record


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
    from jaxad.data.captions.attach import Captions

    dataset = load_data(command, command.holdout)
    if command.model.trained and len(dataset.holdout):
        reporter.warn(
            [
                "the threshold is chosen on images that the checkpoint's authors may have trained on, and may be too "
                "low; take images that they cannot have had, or --holdout 0 for no threshold"
            ]
        )
    if command.model.captions == "never" or (command.model.captions == "train" and command.model.trained):
        return dataset, {"captions": {"source": None, "images": 0, "missing": 0}}
    captions = None if command.captions is None else Captions.load(command.captions, "train")
    train, holdout = (described(part, captions) for part in (dataset.train, dataset.holdout))
    record = caption_record(train, captions, "train", reporter, besides=holdout.records)
    return dataclasses.replace(dataset, train=train, holdout=holdout), {"captions": record}


def described(source: ImageSource, captions: Captions | None) -> ImageSource:
    """The images with these captions; with those stored with them where `captions` is None.

    Raises:
        DataError: two captions of one image, or another order than that of the images.
    """
    from jaxad.data.captions.attach import with_captions

    return source if captions is None else with_captions(source, captions)


def caption_record(
    source: ImageSource,
    captions: Captions | None,
    split: Literal["train", "test"],
    reporter: Reporter,
    *,
    besides: Sequence[Record] = (),
) -> dict[str, Any]:
    """What reports say of the captions of `source`; warns of images without caption and of captions without image.

    Args:
        source: the images, described.
        captions: what describes them; None for captions stored with them.
        split: which part of the data set they are.
        reporter: warns.
        besides: images of the same part that `source` lacks, such as its hold-out.

    Returns:
        "source" (None for captions stored with the images), "images", "missing".

    Raises:
        DataError: captions were given, but none of the images has one.
    """
    missing = sum(not record.caption for record in source.records)
    if captions is not None and missing and missing == len(source):
        begin = captions.unlike([record.identity for record in source.records])
        raise DataError(f"{captions.source}: none of the {missing} {split} images has a caption there; {begin}")
    if missing:
        reporter.warn([f'{missing} of {len(source)} {split} images have no caption; "" stands for it'])
    if captions is not None:
        surplus = captions.surplus([record.identity for record in (*source.records, *besides)])
        if surplus:
            reporter.warn([f"{len(surplus)} captions are of no {split} image here, the first of {surplus[0]}"])
    return {"source": None if captions is None else captions.source, "images": len(source), "missing": missing}


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
    from jaxad.data.captions.attach import Captions

    found = None if captions is None else Captions.load(captions, "test")
    test = described(test, found)
    return test, {"test_captions": caption_record(test, found, "test", reporter)}


def takes_captions(detector: Detector) -> bool:
    """Whether captions condition the detector at test time."""
    return getattr(detector.config, "captions", None) == "always"


def captions_flags(command: Any, detector: Detector) -> tuple[object, ...]:
    """Flags for the command that evaluates what `command` fits, where captions of files condition it at test time."""
    given: Path | None = getattr(command, "captions", None)
    if given is None or not takes_captions(detector):
        return ()
    # A folder holds those of both parts; a file those of the training images alone.
    return ("--captions", given if given.is_dir() else "TEST_CAPTIONS")
