"""Captions of test images, for detectors that they condition."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described
from jaxad.errors import ConfigError
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import ImageSource
    from jaxad.detector import Detector


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
    found = None if captions is None else Captions.load(captions, "test")
    test = described(test, found)
    return test, {"test_captions": caption_record(test, found, "test", reporter)}


def takes_captions(detector: Detector) -> bool:
    """Whether captions condition the detector at test time."""
    return detector.inputs.captions == "always"
