"""The data-set doctor: decodes every image and mask and lists everything wrong, before anything is trained.

`jaxad prepare` finds fault with images and masks by the same rules, but stores official images whose mask is empty.

problem                       fatal   what on_bad="skip" does
unreadable image              yes     drops the image
truncated image               yes     drops the image
decompression bomb            yes     drops the image
unsupported mode              yes     drops the image
unreadable mask               yes     drops the image
mask size                     yes     drops the image (the mask is not the image's size)
empty mask                    yes     drops the image (it is labeled anomalous, its mask marks nothing)
mask on normal image          yes     drops the image (it is labeled normal, its mask marks a defect)
duplicate in train and test   yes     drops the training copy (equal decoded pixels, whatever the files)
mask without image            yes     ignores the mask
empty category                yes     leaves the category out
duplicate in train, in test   no      keeps both
image without mask            no      keeps it; other images of the category have masks
gray mask                     no      keeps it; says by which rule its values count as defect
no training image, unlabeled image, ignored file, ignored folder, small hold-out      no      notes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from jaxad.data.decode import decode, decode_mask_levels, pixel_digest
from jaxad.data.source import ImageSource
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems
from jaxad.io.threads import map_threads
from jaxad.types import Record


class Finding(NamedTuple):
    """A problem and the image it is about."""

    record: Record
    problem: Problem


class Examination(NamedTuple):
    """What decoding everything tells.

    Attributes:
        findings: problems of single images, in the order of the images, then duplicates.
        notes: problems of whole categories.
        images: by category, numbers of images by "sizes" ("900 x 900", width first) and by "kinds" ("PNG RGB").
    """

    findings: tuple[Finding, ...]
    notes: tuple[Problem, ...]
    images: Mapping[str, Mapping[str, Mapping[str, int]]]


class ExaminedMask(NamedTuple):
    """What is wrong with a mask, and the lowest and the highest of its values above 0."""

    problems: list[Problem]
    levels: tuple[int, ...] = ()


class _Examined(NamedTuple):
    digest: bytes | None
    problems: list[Problem]
    size: str = ""
    kind: str = ""
    levels: tuple[int, ...] = ()


def examine(train: Sequence[ImageSource], test: ImageSource, *, workers: int = 2) -> Examination:
    """Decodes all images and masks and compares the pixels; memory stays that of a few images.

    Args:
        train: normal images, in one part or several.
        test: labeled images with or without masks.
        workers: threads that decode.
    """
    places = [(source, index) for source in (*train, test) for index in range(len(source))]
    examined = list(map_threads(lambda place: _examine(*place), places, workers))
    records = [source.records[index] for source, index in places]
    findings = [Finding(r, problem) for r, result in zip(records, examined, strict=True) for problem in result.problems]
    digests = [result.digest for result in examined]
    split = len(places) - len(test)
    in_test = _first(digests[split:], records[split:])
    for record, digest in zip(records[:split], digests[:split], strict=True):
        if digest in in_test:
            detail = f"same pixels as {in_test[digest].file}; remove one of them"
            findings.append(Finding(record, Problem("duplicate in train and test", str(record.file), detail)))
    findings += _copies("duplicate in train", records[:split], digests[:split])
    findings += _copies("duplicate in test", records[split:], digests[split:])
    return Examination(tuple(findings), _gray_masks(records, examined), _survey(records, examined))


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
        problems.add("mask size", name, f"{sizes}; export it at the size of the image")
    if label == 1 and not mask.any():
        problems.add("empty mask", name, f"marks nothing, but {image} is labeled anomalous; draw it or move the image")
    if label == 0 and mask.any():
        detail = f"marks a defect in {image}, which is labeled normal; correct one of them"
        problems.add("mask on normal image", name, detail)
    return ExaminedMask(problems, tuple(sorted({*values[:1].tolist(), *values[-1:].tolist()})))


def _examine(source: ImageSource, index: int) -> _Examined:
    record = source.records[index]
    name = str(record.file)
    try:
        image, kind = decode(source.encoded(index), name)
    except DataError as error:
        return _Examined(None, list(error.problems))
    problems, levels = examine_mask(
        lambda: source.encoded_mask(index), str(record.mask), image=name, size=image.shape[:2], label=record.label
    )
    return _Examined(pixel_digest(image), problems, f"{image.shape[1]} x {image.shape[0]}", kind, levels)


def _gray_masks(records: Sequence[Record], examined: Sequence[_Examined]) -> tuple[Problem, ...]:
    """One note for each category with masks of several levels: they are cut, and the user should know where."""
    levels: dict[str, list[tuple[int, ...]]] = {}
    for record, result in zip(records, examined, strict=True):
        if len(result.levels) > 1:
            levels.setdefault(record.category, []).append(result.levels)
    return tuple(
        Problem(
            "gray mask",
            category,
            f"{len(found)} masks hold several values above 0, {min(map(min, found))} to {max(map(max, found))}; "
            "every pixel above 0 counts as defect (of JPEG masks above 127)",
            fatal=False,
        )
        for category, found in levels.items()
    )


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


def _first(digests: Iterable[bytes | None], records: Sequence[Record]) -> dict[bytes, Record]:
    found: dict[bytes, Record] = {}
    for digest, record in zip(digests, records, strict=True):
        if digest is not None:
            found.setdefault(digest, record)
    return found


def _copies(kind: str, records: Sequence[Record], digests: Sequence[bytes | None]) -> list[Finding]:
    first = _first(digests, records)
    return [
        Finding(r, Problem(kind, str(r.file), f"same pixels as {first[digest].file}", fatal=False))
        for r, digest in zip(records, digests, strict=True)
        if digest is not None and first[digest] is not r
    ]
