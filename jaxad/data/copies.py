"""Images of equal pixels, whatever their files: copies within a part, leaks between parts, labels that contradict."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import NamedTuple

from jaxad.errors import Problem
from jaxad.types import Record


class Finding(NamedTuple):
    """A problem and the image it is about."""

    record: Record
    problem: Problem


Digests = Sequence[bytes | None]
"""A digest of the pixels of each image, None where it cannot be decoded."""


def leaks(normal: Sequence[Record], digests: Digests, test: Sequence[Record], in_test: Digests) -> list[Finding]:
    """Training images that are in the test part too: what is measured there would be too good."""
    first = _first(test, in_test)
    findings = []
    for record, digest in zip(normal, digests, strict=True):
        if digest in first:
            other = first[digest]
            label = f", which is labeled {other.defect}" if other.label else ""
            detail = f"same pixels as {other.file}{label}; remove one of them"
            findings.append(Finding(record, Problem("duplicate in train and test", str(record.file), detail)))
    return findings


def spilled(normal: Sequence[Record], digests: Digests, validation: Collection[Record]) -> list[Finding]:
    """Training images that are among the validation images: the threshold chosen on these would be too low."""
    held = _first(
        [record for record in normal if record in validation],
        [digest for record, digest in zip(normal, digests, strict=True) if record in validation],
    )
    return [
        Finding(record, Problem("duplicate in train and validation", str(record.file), _same_as(held[digest])))
        for record, digest in zip(normal, digests, strict=True)
        if record not in validation and digest in held
    ]


def contradictions(test: Sequence[Record], digests: Digests) -> list[Finding]:
    """Test images of one category that are normal here and anomalous there."""
    groups: dict[tuple[str, bytes], list[Record]] = defaultdict(list)
    for record, digest in zip(test, digests, strict=True):
        if digest is not None and record.label is not None:
            groups[record.category, digest].append(record)
    findings = []
    for group in groups.values():
        for record in group:
            if other := next((other for other in group if other.label != record.label), None):
                detail = (
                    f"labeled {record.defect}, but {other.file} has the same pixels and is labeled {other.defect}; "
                )
                problem = Problem("contradictory labels", str(record.file), detail + "remove the wrong one")
                findings.append(Finding(record, problem))
    return findings


def copies(
    kind: str, records: Sequence[Record], digests: Digests, besides: Collection[bytes | None] = ()
) -> list[Finding]:
    """Further copies of images within a part, as notes; not of pixels `besides`, of which something worse is said."""
    first = _first(records, digests)
    return [
        Finding(record, Problem(kind, str(record.file), f"same pixels as {first[digest].file}", fatal=False))
        for record, digest in zip(records, digests, strict=True)
        if digest is not None and first[digest] is not record and digest not in besides
    ]


def _same_as(other: Record) -> str:
    return f"same pixels as {other.file}; remove one of them"


def _first(records: Sequence[Record], digests: Digests) -> dict[bytes | None, Record]:
    found: dict[bytes | None, Record] = {}
    for digest, record in zip(digests, records, strict=True):
        if digest is not None:
            found.setdefault(digest, record)
    return found
