"""Captions of the images that a command works on: attached where files have them, and what reports say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jaxad.data.captions.attach import Captions, with_captions
from jaxad.data.captions.files import named
from jaxad.data.source import ImageSource
from jaxad.errors import DataError
from jaxad.io.progress import Reporter
from jaxad.types import Record, Source

NAMED = 5
"""Images without caption that are named; the others are counted."""


def described(source: ImageSource, captions: Captions | None) -> ImageSource:
    """The images with these captions; with those stored with them where `captions` is None.

    Raises:
        DataError: two captions of one image.
    """
    return source if captions is None else with_captions(source, captions)


def caption_record(
    source: Source,
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
        What `record_of` does.

    Raises:
        DataError: captions were given, but none of the images has one.
    """
    found = record_of(captions, source.records)
    missing = found["missing"]
    if captions is not None and missing and missing == len(source):
        begin = captions.unlike([record.identity for record in source.records])
        raise DataError(f"{captions.source}: none of the {missing} {split} images has a caption there; {begin}")
    if missing:
        reporter.warn([lacking(source.records, f"{split} images")])
    if captions is not None:
        surplus = captions.surplus([record.identity for record in (*source.records, *besides)])
        if surplus:
            reporter.warn([f"{len(surplus)} captions are of no {split} image here, the first of {surplus[0]}"])
    return found


def record_of(captions: Captions | None, records: Sequence[Record]) -> dict[str, Any]:
    """What is recorded of the captions of images, JSON-ready.

    Args:
        captions: what describes them; None for captions stored with them, or for none.
        records: the images, described.

    Returns:
        "source" (None for captions stored with the images), "kind" of `Captions`, "images", "missing".
    """
    known = {"source": None, "kind": ""} if captions is None else {"source": captions.source, "kind": captions.kind}
    return {**known, "images": len(records), "missing": sum(not record.caption for record in records)}


def lacking(records: Sequence[Record], what: str = "images") -> str:
    """Says how many of some images have no caption, and where some have one which have none; "" where all have one."""
    without = [record.identity or str(record.file) for record in records if not record.caption]
    if not without:
        return ""
    more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
    which = f" ({', '.join(without[:NAMED])}{more})" if len(without) < len(records) else ""
    return f'{len(without)} of {len(records)} {what} have no caption{which}; "" stands for it'


def other_kind(measured: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Why a threshold does not hold for images with captions of another kind; "" where it does, or nobody can tell.

    Args:
        measured: what `record_of` says of the images that the run was fitted on, as its hold-out has them.
        now: the same of the images that are to be judged.
    """
    measured, now = ({**record, "kind": named(record.get("kind") or "")} for record in (measured, now))
    theirs, mine = (_described(record) for record in (measured, now))
    if bool(theirs) == bool(mine) and (theirs == mine or not (measured.get("kind") and now.get("kind"))):
        return ""
    return f"it was measured with {theirs or 'no captions'}, and here are {mine or 'none'}"


def _described(record: Mapping[str, Any]) -> str:
    """What captions a record is of; "" for none."""
    if record.get("missing", 0) >= record.get("images", 0):
        return ""
    return f"captions of {record['kind']}" if record.get("kind") else "captions of an unknown kind"
