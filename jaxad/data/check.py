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
no training image, unlabelled image, ignored file, ignored folder, small hold-out      no      notes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxad.data.decode import decode_image, decode_mask, pixel_digest
from jaxad.data.layout import scan
from jaxad.errors import DataError, Problem
from jaxad.types import Record

if TYPE_CHECKING:
    from jaxad.data.dataset import DataSet


class Finding(NamedTuple):
    """A problem and the image it is about."""

    record: Record
    problem: Problem


class _Examined(NamedTuple):
    digest: bytes | None
    problems: list[Problem]


def check(data: DataSet | str | Path, *, categories: tuple[str, ...] | None = None, workers: int = 2) -> list[Problem]:
    """Everything wrong with a data set, fatal problems first, each kind in the order of the files.

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
        train, test, known = (*listing.train, *listing.validation), listing.test, listing.problems
    else:
        train, test, known = (*data.train.records, *data.holdout.records), data.test.records, data.problems
    found = [finding.problem for finding in examine(train, test, workers=workers)]
    return sorted(dict.fromkeys([*known, *found]), key=lambda problem: not problem.fatal)


def examine(train: Sequence[Record], test: Sequence[Record], *, workers: int = 2) -> list[Finding]:
    """Decodes all images and masks and compares the pixels; memory stays that of a few images.

    Args:
        train: records of normal images.
        test: records of labelled images with or without masks.
        workers: threads that decode.

    Returns:
        Problems in the order of the records, then duplicates.
    """
    records = [*train, *test]
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        examined = list(pool.map(_examine, records))
    findings = [Finding(r, problem) for r, result in zip(records, examined, strict=True) for problem in result.problems]
    digests = [result.digest for result in examined]
    split = len(train)
    in_test = _first(digests[split:], test)
    for record, digest in zip(train, digests[:split], strict=True):
        if digest in in_test:
            detail = f"same pixels as {in_test[digest].file}; remove one of them"
            findings.append(Finding(record, Problem("duplicate in train and test", str(record.file), detail)))
    findings += _copies("duplicate in train", train, digests[:split])
    findings += _copies("duplicate in test", test, digests[split:])
    return findings


def _examine(record: Record) -> _Examined:
    try:
        image = decode_image(record.file)
    except DataError as error:
        return _Examined(None, list(error.problems))
    problem = partial(Problem, file=str(record.mask))
    problems = []
    if record.mask is not None:
        try:
            mask = decode_mask(record.mask)
        except DataError as error:
            problems = [replace(p, kind="unreadable mask", detail=f"{p.kind}: {p.detail}") for p in error.problems]
        else:
            if mask.shape != image.shape[:2]:
                sizes = (
                    f"{mask.shape[1]} x {mask.shape[0]}, its image {image.shape[1]} x {image.shape[0]} ({record.file})"
                )
                problems.append(problem(kind="mask size", detail=f"{sizes}; export it at the size of the image"))
            if record.label == 1 and not mask.any():
                detail = f"marks nothing, but {record.file} is in the folder of a defect; draw it or move the image"
                problems.append(problem(kind="empty mask", detail=detail))
            if record.label == 0 and mask.any():
                detail = f"marks a defect in {record.file}, which is labelled normal; correct one of them"
                problems.append(problem(kind="mask on normal image", detail=detail))
    return _Examined(pixel_digest(image), problems)


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
