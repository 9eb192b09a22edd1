"""Keeps some normal training images out of training, banks and statistics, for the threshold."""

from __future__ import annotations

from itertools import groupby

from jaxad.data.source import ImageSource
from jaxad.io.threads import map_threads
from jaxad.types import Source


def digests(source: Source, *, workers: int | None = None) -> list[bytes]:
    """The digest of every image of a source, in its order; those examined before are not decoded again."""
    return list(map_threads(source.digest, range(len(source)), workers))


def split_holdout(
    source: ImageSource, share: float = 0.1, *, minimum: int = 5, most: float = 0.5, workers: int | None = None
) -> tuple[list[int], list[int]]:
    """Splits normal images into those that train and those held out.

    Of a category's n images max(share * n, minimum), rounded, are held out, but never more than a share of `most`: by
    default half, so that a category of one image trains on it and has no hold-out. They are the ones whose pixels hash
    lowest: the choice depends on neither names, formats nor order nor other categories, is the same for a folder and
    for that folder prepared, and copies of an image, in whatever format, stay on the same side (in training where they
    would not fit).

    Args:
        source: normal images.
        share: share to hold out, 0 to 1; 0 holds out nothing.
        minimum: smallest number held out of a category, as far as `most` of it goes.
        most: largest share of a category that is held out.
        workers: threads that decode images not examined before; None for one per CPU.

    Returns:
        Indices of the training images and of the held-out images, each ascending.
    """
    held: set[int] = set()
    if share > 0:
        digests = list(map_threads(source.digest, range(len(source)), workers))
        for category in source.categories:
            own = [index for index, record in enumerate(source.records) if record.category == category]
            wanted = min(max(round(share * len(own)), minimum), int(most * len(own)))
            held.update(_lowest(own, digests, wanted))
    return [i for i in range(len(source)) if i not in held], sorted(held)


def _lowest(indices: list[int], digests: list[bytes], wanted: int) -> list[int]:
    chosen: list[int] = []
    for _, copies in groupby(sorted(indices, key=digests.__getitem__), key=digests.__getitem__):
        group = list(copies)
        if len(chosen) + len(group) <= wanted:
            chosen += group
    return chosen
