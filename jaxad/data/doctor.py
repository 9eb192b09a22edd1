"""The data-set doctor: decodes every image and mask and lists everything wrong, before anything is trained.

`jaxad prepare` finds fault with images and masks by the same rules, but stores official images whose mask is empty.

problem                       fatal   what on_bad="skip" does
unreadable image              yes     drops the image
truncated image               yes     drops the image
damaged image                 yes     drops the image (broken markers or codes in a JPEG)
decompression bomb            yes     drops the image
unsupported mode              yes     drops the image
unreadable mask               yes     drops the image
mask size                     yes     drops the image (the mask is not the image's size)
empty mask                    yes     drops the image (it is labeled anomalous, its mask marks nothing)
mask on normal image          yes     drops the image (it is labeled normal, its mask marks a defect)
mask among images             yes     drops the image (black and white alone, unlike the normal images of its category)
contradictory labels          yes     drops all copies (normal and anomalous images of equal pixels)
duplicate in train and test   yes     drops the training copy (equal decoded pixels, whatever the files)
duplicate in train and validation     yes     drops the training copy
mask without image            yes     ignores the mask
ambiguous mask                yes     ignores the mask (several fit one image, or it fits several)
dangling link                 yes     ignores the link
unclear folder                yes     ignores the folder
empty category                yes     leaves the category out
duplicate in train, in test   no      keeps both
image without mask            no      keeps it; other images of the category have masks
gray mask                     no      keeps it; says by which rule its values count as defect
large mask                    no      keeps it; a mask of most of the image may be inverted
narrow range, mixed range     no      says how many of the 16 bits are used, and what becomes black and white
several frames                no      says that the first is used
no training image, unlabeled image, ignored file, ignored folder, unclear name, similar category, benchmark,
small hold-out                no      notes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxad.data.copies import Finding, contradictions, copies, leaks, spilled
from jaxad.data.decode import decode_mask_levels
from jaxad.data.depth import FULL, common_depths
from jaxad.data.layout.evidence import is_binary
from jaxad.data.source import ImageSource
from jaxad.data.turns import large_images_in_turn
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems
from jaxad.io.threads import map_threads
from jaxad.types import Record

LARGE_SHARE = 0.9
"""Share of an image above which a mask is worth a note."""


class Examination(NamedTuple):
    """What decoding everything tells.

    Attributes:
        findings: problems of single images, in the order of the images, then duplicates.
        notes: problems of whole categories.
        images: by category, numbers of images by "sizes" ("900 x 900", width first) and by "kinds" ("PNG RGB").
        depths: by category with 16-bit images, at how many bits they are to be read (`jaxad.data.depth`).
    """

    findings: tuple[Finding, ...] = ()
    notes: tuple[Problem, ...] = ()
    images: Mapping[str, Mapping[str, Mapping[str, int]]] = {}
    depths: Mapping[str, int] = {}


class ExaminedMask(NamedTuple):
    """What is wrong with a mask, the lowest and the highest of its values above 0, and its share of the image."""

    problems: list[Problem]
    levels: tuple[int, ...] = ()
    share: float = 0.0


class _Examined(NamedTuple):
    problems: list[Problem]
    digest: bytes | None = None
    size: str = ""
    kind: str = ""
    bits: int = 0
    frames: int = 1
    binary: bool = False
    mask: ExaminedMask = ExaminedMask([])


def examine(
    train: Sequence[ImageSource],
    test: ImageSource,
    *,
    validation: Collection[Record] = frozenset(),
    workers: int | None = None,
) -> Examination:
    """Decodes all images and masks and compares the pixels; memory stays that of a few images.

    Args:
        train: normal images, in one part or several.
        test: labeled images with or without masks.
        validation: records among the normal images that are for the threshold alone.
        workers: threads that decode; None for one per CPU.
    """
    places = [(source, index) for source in (*train, test) for index in range(len(source))]
    examined = list(map_threads(lambda place: _examine(*place), places, workers))
    records = [source.records[index] for source, index in places]
    digests = [result.digest for result in examined]
    split = len(places) - len(test)
    normal, in_train = records[:split], digests[:split]
    tested, in_test = records[split:], digests[split:]
    findings = [Finding(r, problem) for r, result in zip(records, examined, strict=True) for problem in result.problems]
    findings += _masks_among(records, examined)
    findings += leaks(normal, in_train, tested, in_test)
    worse = [*spilled(normal, in_train, validation), *contradictions(tested, in_test)]
    known = dict(zip(records, digests, strict=True))
    named = {known[finding.record] for finding in worse}
    findings += worse
    findings += copies("duplicate in train", normal, in_train, named)
    findings += copies("duplicate in test", tested, in_test, named)
    depths = common_depths((r.category, result.bits) for r, result in zip(records, examined, strict=True))
    notes = (
        *_gray_masks(records, examined),
        *_large_masks(records, examined),
        *_ranges(records, examined, depths),
        *_frames(records, examined),
    )
    return Examination(tuple(findings), notes, _survey(records, examined), depths)


def examine_mask(
    read: Callable[[], bytes | None], name: str, *, image: str, size: tuple[int, ...], label: int | None
) -> ExaminedMask:
    """Decodes a mask and compares it with its image.

    Args:
        read: gives its encoded bytes, none where there is no mask; may raise DataError.
        name: what messages call it.
        image: what they call its image.
        size: height and width of the image.
        label: 1 where the image is anomalous, 0 where it is normal.

    Returns:
        Problems of kind "unreadable mask", "mask size", "empty mask" and "mask on normal image".
    """
    try:
        encoded = read()
        if not encoded:
            return ExaminedMask([])
        mask, values = decode_mask_levels(encoded, name)
    except DataError as error:
        return ExaminedMask(
            [replace(p, kind="unreadable mask", detail=f"{p.kind}: {p.detail}") for p in error.problems]
        )
    problems = Problems()
    if mask.shape != size:
        sizes = f"{mask.shape[1]} x {mask.shape[0]}, its image {size[1]} x {size[0]} ({image})"
        turned = mask.shape == size[::-1]
        mend = "the image is turned as its EXIF asks; turn the mask too" if turned else "export it at the image's size"
        problems.add("mask size", name, f"{sizes}; {mend}")
    if label == 1 and not mask.any():
        problems.add("empty mask", name, f"marks nothing, but {image} is labeled anomalous; draw it or move the image")
    if label == 0 and mask.any():
        detail = f"marks a defect in {image}, which is labeled normal; correct one of them"
        problems.add("mask on normal image", name, detail)
    levels = tuple(sorted({*values[:1].tolist(), *values[-1:].tolist()}))
    return ExaminedMask(problems, levels, float(mask.mean()))


def _examine(source: ImageSource, index: int) -> _Examined:
    record = source.records[index]
    name = str(record.file)
    with large_images_in_turn():
        try:
            image = source.examined(index)
        except DataError as error:
            return _Examined(list(error.problems))
        size = image.pixels.shape[:2]
        mask = examine_mask(
            lambda: source.encoded_mask(index), str(record.mask), image=name, size=size, label=record.label
        )
        # Of one value alone are black frames, and masks that mark nothing.
        binary = is_binary(image.values) and bool(np.ptp(image.values))
        measured = f"{size[1]} x {size[0]}"
        return _Examined(mask.problems, image.digest, measured, image.kind, image.bits, image.frames, binary, mask)


def _by_category(records: Sequence[Record], examined: Sequence[_Examined]) -> Iterator[tuple[str, list[_Examined]]]:
    """What was found in each category's images, as far as they could be decoded."""
    found: dict[str, list[_Examined]] = {}
    for record, result in zip(records, examined, strict=True):
        if result.size:
            found.setdefault(record.category, []).append(result)
    yield from found.items()


def _masks_among(records: Sequence[Record], examined: Sequence[_Examined]) -> list[Finding]:
    """Anomalous images of black and white alone, in categories whose normal images are none of that."""
    pairs = [(record, result) for record, result in zip(records, examined, strict=True) if result.size]
    photos = {record.category for record, _ in pairs if record.label == 0}
    photos -= {record.category for record, result in pairs if record.label == 0 and result.binary}
    detail = (
        "black and white alone, unlike the normal images; if it is a mask, move it to ground_truth/<defect>, named as "
        "its image"
    )
    return [
        Finding(record, Problem("mask among images", str(record.file), detail))
        for record, result in pairs
        if record.label and result.binary and record.category in photos
    ]


def _gray_masks(records: Sequence[Record], examined: Sequence[_Examined]) -> list[Problem]:
    """One note for each category with masks of several levels: they are cut, and the user should know where."""
    notes = []
    for category, results in _by_category(records, examined):
        if found := [result.mask.levels for result in results if len(result.mask.levels) > 1]:
            detail = (
                f"{len(found)} masks hold several values above 0, {min(map(min, found))} to {max(map(max, found))}; "
                "every pixel above 0 counts as defect (of JPEG masks above 127)"
            )
            notes.append(Problem("gray mask", category, detail, fatal=False))
    return notes


def _large_masks(records: Sequence[Record], examined: Sequence[_Examined]) -> list[Problem]:
    """One note for each category with masks of nearly the whole image, as inverted ones are."""
    large: dict[str, list[tuple[Record, float]]] = {}
    for record, result in zip(records, examined, strict=True):
        if result.mask.share > LARGE_SHARE:
            large.setdefault(record.category, []).append((record, result.mask.share))
    return [
        Problem(
            "large mask",
            category,
            f"{len(found)} masks mark more than {LARGE_SHARE:.0%} of the image, e.g. {found[0][0].mask} "
            f"{found[0][1]:.0%}; if they are black on the defect, invert them",
            fatal=False,
        )
        for category, found in large.items()
    ]


def _ranges(records: Sequence[Record], examined: Sequence[_Examined], depths: Mapping[str, int]) -> Iterator[Problem]:
    """How 16-bit images become 8 bits, where it is not by their full range, or does not suit all of a category."""
    for category, results in _by_category(records, examined):
        bits = [result.bits for result in results if result.bits]
        depth = depths.get(category, FULL)
        if depth < FULL:
            detail = (
                f"{len(bits)} images of 16 bits use {depth} of them; 0 to {2**depth - 1} becomes black to white, in "
                "training, test and prediction alike"
            )
            yield Problem("narrow range", category, detail, fatal=False)
        if narrow := sum(number <= depth - 4 for number in bits):
            detail = (
                f"{narrow} of {len(bits)} images of 16 bits use {depth - 4} bits or fewer, others {depth}, and become "
                "nearly black beside them; if they are from another camera, scale them alike"
            )
            yield Problem("mixed range", category, detail, fatal=False)


def _frames(records: Sequence[Record], examined: Sequence[_Examined]) -> Iterator[Problem]:
    for category, results in _by_category(records, examined):
        if number := sum(result.frames > 1 for result in results):
            detail = f"{number} files hold several frames, of which the first is used; save the others as files"
            yield Problem("several frames", category, detail, fatal=False)


def _survey(records: Sequence[Record], examined: Sequence[_Examined]) -> dict[str, dict[str, dict[str, int]]]:
    survey: dict[str, dict[str, Counter[str]]] = {}
    for record, result in zip(records, examined, strict=True):
        if result.size:
            counts = survey.setdefault(record.category, {"sizes": Counter(), "kinds": Counter()})
            counts["sizes"][result.size] += 1
            counts["kinds"][result.kind] += 1
    return {
        category: {name: dict(sorted(counter.items())) for name, counter in counts.items()}
        for category, counts in sorted(survey.items())
    }
