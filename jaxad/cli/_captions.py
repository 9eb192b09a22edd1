"""Captions of images that are judged, for detectors that they condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described, other_kind
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import ImageList, ImageSource
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
        _refuse_unused(captions)
        return test, {}
    found = None if captions is None else Captions.load(captions, "test")
    test = described(test, found)
    return test, {"test_captions": caption_record(test, found, "test", reporter)}


def described_photos(
    photos: ImageList, captions: Path | None, detector: Detector, reporter: Reporter
) -> dict[str, Any]:
    """Gives photos their captions, in place, and says what `caption_record` does of them.

    Raises:
        ConfigError: captions are given that the detector does not take.
        DataError: no photo has one.
    """
    if not takes_captions(detector):
        _refuse_unused(captions)
        return {}
    if captions is None:
        return caption_record(photos, None, "test", reporter)
    found = Captions.load(captions, "test")
    texts = found.of_files(record.file for record in photos.records)
    if not any(texts):
        raise DataError(
            f"{captions}: no image has a caption there; labels must be the ends of images' paths, "
            f"{found.unlike([str(photos.records[0].file)])}"
        )
    photos.describe(texts)
    if missing := texts.count(""):
        reporter.warn([f'{missing} of {len(texts)} images have no caption; "" stands for it'])
    return {"source": found.source, "kind": found.kind, "images": len(texts), "missing": missing}


def described_normal(
    parts: Sequence[ImageSource],
    captions: Path | None,
    meta: Mapping[str, Any],
    detector: Detector,
    reporter: Reporter,
) -> list[ImageSource]:
    """Normal images to measure a run's threshold on, with captions of the kind that it was fitted with.

    Raises:
        ConfigError: captions that the detector does not take, or of another kind.
        DataError: captions that do not fit the images.
    """
    if not takes_captions(detector):
        _refuse_unused(captions)
        return list(parts)
    found = None if captions is None else Captions.load(captions, "train")
    given = [described(part, found) for part in parts]
    others = [record for part in given for record in part.records]
    records = [caption_record(part, found, "train", reporter, besides=others) for part in given]
    for record in records:
        if unlike := unlike_the_threshold(meta, detector, record):
            raise ConfigError(f"captions: the threshold cannot be chosen anew, {unlike}; give --captions of that kind")
    return given


def unlike_the_threshold(meta: Mapping[str, Any], detector: Detector, record: Mapping[str, Any]) -> str:
    """Why a run's threshold does not hold for images with these captions; "" where it does.

    Args:
        meta: of the run's checkpoint.
        detector: the run's.
        record: of the images' captions, as `caption_record` makes it.
    """
    measured = meta.get("data", {}).get("captions")
    return "" if measured is None or not takes_captions(detector) else other_kind(measured, record)


def _refuse_unused(captions: Path | None) -> None:
    if captions is not None:
        raise ConfigError(
            f"--captions {captions}: this detector takes no captions at test time; a VLMDiff does that was trained "
            "with --model.captions always, or with --override captions=always"
        )


def takes_captions(detector: Detector) -> bool:
    """Whether captions condition the detector at test time."""
    return detector.inputs.captions == "always"
