"""Captions of images that are judged, for detectors that they condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxad.cli._command import raise_problems
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.record import caption_record, described, lacking, other_kind, record_of
from jaxad.errors import ConfigError, DataError
from jaxad.io.progress import Reporter

if TYPE_CHECKING:
    from jaxad.data import ImageList, ImageSource
    from jaxad.detector import Detector


def read_given(captions: Path | None, split: str, config: Any = None) -> Captions | None:
    """The captions that a flag names, read before anything that takes time; None where it names none.

    Args:
        captions: folder or file.
        split: whose captions a folder is to give.
        config: of the detector that is to take them at test time; None where several detectors may.

    Raises:
        ConfigError: the detector takes none; then also what is wrong with the files.
        DataError: what is wrong with the files.
    """
    if captions is None:
        return None
    unused = [] if config is None or are_taken(config) else [str(_unused(captions))]
    try:
        found = Captions.load(captions, split)
    except DataError as error:
        if not unused:
            raise
        unused.append(str(error))
    raise_problems(unused)
    return found


def described_test(
    test: ImageSource, captions: Captions | None, detectors: Sequence[Detector], reporter: Reporter
) -> tuple[ImageSource, dict[str, Any]]:
    """The test images as `detectors` want them, and what reports say of it: "test_captions" where one wants captions.

    Raises:
        ConfigError: captions are given that no detector takes.
        DataError: captions that do not fit the images.
    """
    if not any(takes_captions(detector) for detector in detectors):
        if captions is not None:
            raise _unused(captions.source)
        return test, {}
    test = described(test, captions)
    return test, {"test_captions": caption_record(test, captions, "test", reporter)}


def described_photos(photos: ImageList, captions: Captions | None) -> dict[str, Any]:
    """Gives photos their captions, in place, and says what `record_of` does of them.

    Raises:
        DataError: no photo has one.
    """
    if captions is None:
        return record_of(None, photos.records)
    texts = captions.of_files(record.file for record in photos.records)
    if not any(texts):
        raise DataError(
            f"{captions.source}: no image has a caption there; labels must be the ends of images' paths, "
            f"{captions.unlike([str(photos.records[0].file)])}"
        )
    photos.describe(texts)
    return record_of(captions, photos.records)


def check_photos(
    photos: ImageList, captions: Captions | None, meta: Mapping[str, Any], reporter: Reporter, *, decides: bool
) -> None:
    """Looks at the captions of photos before networks are loaded that take them; warns of photos without one.

    Args:
        photos: get the captions.
        captions: of them; None for none.
        meta: of the run's checkpoint.
        reporter: warns.
        decides: whether the run's threshold is to decide.

    Raises:
        ConfigError: captions of another kind than those of the threshold.
        DataError: no photo has a caption.
    """
    record = described_photos(photos, captions)
    if decides and (unlike := _unlike(meta, record)):
        raise unfit(unlike)
    if text := lacking(photos.records):
        reporter.warn([text if captions is not None else f"{text}; give them with --captions"])


def described_normal(
    parts: Sequence[ImageSource],
    captions: Captions | None,
    meta: Mapping[str, Any],
    config: Any,
    reporter: Reporter,
) -> list[ImageSource]:
    """Normal images to measure a run's threshold on, with captions of the kind that it was fitted with.

    Raises:
        ConfigError: captions of another kind.
        DataError: captions that do not fit the images.
    """
    if not are_taken(config):
        return list(parts)
    given = [described(part, captions) for part in parts]
    others = [record for part in given for record in part.records]
    records = [caption_record(part, captions, "train", reporter, besides=others) for part in given]
    for record in records:
        if unlike := _unlike(meta, record):
            raise ConfigError(f"captions: the threshold cannot be chosen anew, {unlike}; give --captions of that kind")
    return given


def unlike_the_threshold(meta: Mapping[str, Any], detector: Detector, record: Mapping[str, Any]) -> str:
    """Why a run's threshold does not hold for images with these captions; "" where it does.

    Args:
        meta: of the run's checkpoint.
        detector: the run's.
        record: of the images' captions, as `caption_record` makes it.
    """
    return _unlike(meta, record) if takes_captions(detector) else ""


def unfit(unlike: str) -> ConfigError:
    """The refusal of a threshold that does not hold for the captions at hand."""
    return ConfigError(f"captions: the threshold does not hold, {unlike}; give --captions of that kind, or --threshold")


def takes_captions(detector: Detector) -> bool:
    """Whether captions condition the detector at test time."""
    return detector.inputs.captions == "always"


def are_taken(config: Any) -> bool:
    """Whether a detector of that config takes captions at test time (`jaxad.data.fit_options.CaptionOptions`)."""
    return getattr(config, "captions", "never") == "always"


def _unused(captions: Path | str) -> ConfigError:
    return ConfigError(
        f"--captions {captions}: this detector takes no captions at test time; a VLMDiff does that was trained with "
        "--model.captions always, or with --override captions=always"
    )


def _unlike(meta: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    measured = meta.get("data", {}).get("captions")
    return "" if measured is None else other_kind(measured, record)
