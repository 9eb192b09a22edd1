"""The data-set doctor: decodes every image and mask once and lists everything wrong, before anything is trained.

problem                       fatal   what on_bad="skip" does
unreadable image              yes     drops the image
truncated image               yes     drops the image
decompression bomb            yes     drops the image
unsupported mode              yes     drops the image
unreadable mask               yes     drops the image
mask size                     yes     drops the image (the mask is not the image's size)
empty mask                    yes     drops the image (it is labelled anomalous, its mask marks nothing)
mask on normal image          yes     drops the image (it is labelled normal, its mask marks a defect)
duplicate in train and test   yes     drops the training copy (equal decoded pixels, whatever the files)
mask without image            yes     ignores the mask
empty category                yes     leaves the category out
duplicate in train, in test   no      keeps both
image without mask            no      keeps it; other images of the category have masks
grey mask                     no      keeps it; says by which rule its values count as defect
no training image, unlabelled image, ignored file, ignored folder, small hold-out      no      notes
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxad.data.decode import image_kind, mask_levels, pixel_digest
from jaxad.data.folder import FolderSource
from jaxad.data.layout import scan
from jaxad.data.source import ImageSource
from jaxad.errors import DataError, Problem
from jaxad.types import Record

if TYPE_CHECKING:
    from jaxad.data.dataset import DataSet


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


class _Examined(NamedTuple):
    digest: bytes | None
    problems: list[Problem]
    size: str = ""
    kind: str = ""
    levels: tuple[int, ...] = ()  # the lowest and the highest of its mask above 0


def check(data: DataSet | str | Path, *, categories: tuple[str, ...] | None = None, workers: int = 2) -> list[Problem]:
    """Everything wrong with a data set, fatal problems first, each kind in the order of the images.

    Args:
        data: a folder in MVTec layout (with or without "folder:" before it), or a loaded data set, whose problems on
            loading are included.
        categories: categories of the folder to look at, None for all.
        workers: threads that decode.

    Raises:
        DataError: the folder is missing or holds no category at all.
    """
    if isinstance(data, str | Path):
        listing = scan(str(data).removeprefix("folder:"), categories)
        parts: list[ImageSource] = [FolderSource("train", (*listing.train, *listing.validation))]
        test, known = FolderSource("test", listing.test), listing.problems
    else:
        parts, test, known = [data.train, data.holdout], data.test, data.problems
    found = examine(parts, test, workers=workers)
    problems = [*known, *(finding.problem for finding in found.findings), *found.notes]
    return sorted(dict.fromkeys(problems), key=lambda problem: not problem.fatal)


def examine(train: Sequence[ImageSource], test: ImageSource, *, workers: int = 2) -> Examination:
    """Decodes all images and masks and compares the pixels; memory stays that of a few images.

    Args:
        train: normal images, in one part or several.
        test: labelled images with or without masks.
        workers: threads that decode.
    """
    places = [(source, index) for source in (*train, test) for index in range(len(source))]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        examined = list(pool.map(lambda place: _examine(*place), places))
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
    return Examination(tuple(findings), _grey_masks(records, examined), _survey(records, examined))


def _examine(source: ImageSource, index: int) -> _Examined:
    record = source.records[index]
    try:
        image = source[index].image
        kind = image_kind(source.encoded(index), str(record.file))
    except DataError as error:
        return _Examined(None, list(error.problems))
    problem = partial(Problem, file=str(record.mask))
    problems, levels = [], ()
    encoded = source.encoded_mask(index)
    if encoded is not None:
        try:
            mask = source.mask(index)
            values = mask_levels(encoded, str(record.mask)).tolist()
            levels = tuple(sorted({*values[:1], *values[-1:]}))
            assert mask is not None
        except DataError as error:
            problems = [replace(p, kind="unreadable mask", detail=f"{p.kind}: {p.detail}") for p in error.problems]
        else:
            if mask.shape != image.shape[:2]:
                sizes = (
                    f"{mask.shape[1]} x {mask.shape[0]}, its image {image.shape[1]} x {image.shape[0]} ({record.file})"
                )
                problems.append(problem(kind="mask size", detail=f"{sizes}; export it at the size of the image"))
            if record.label == 1 and not mask.any():
                detail = f"marks nothing, but {record.file} is labelled anomalous; draw it or move the image"
                problems.append(problem(kind="empty mask", detail=detail))
            if record.label == 0 and mask.any():
                detail = f"marks a defect in {record.file}, which is labelled normal; correct one of them"
                problems.append(problem(kind="mask on normal image", detail=detail))
    size = f"{image.shape[1]} x {image.shape[0]}"
    return _Examined(pixel_digest(image), problems, size, kind, levels)


def _grey_masks(records: Sequence[Record], examined: Sequence[_Examined]) -> tuple[Problem, ...]:
    """One note for each category with masks of several levels: they are cut, and the user should know where."""
    levels: dict[str, list[tuple[int, ...]]] = {}
    for record, result in zip(records, examined, strict=True):
        if len(result.levels) > 1:
            levels.setdefault(record.category, []).append(result.levels)
    return tuple(
        Problem(
            "grey mask",
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
