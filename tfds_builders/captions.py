"""Captions for images that are being prepared, from files in the published layout."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jaxad.data.captions.attach import Captions
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems
from tfds_builders.examine import Category

OTHER_PART = {"train_captions_": "test_captions_", "captions_train2017": "captions_val2017"}
"""How the file of the test images is called, by the name of that of the training images beside it."""


def attach_captions(categories: Sequence[Category], path: Path) -> tuple[list[Category], list[Problem]]:
    """Gives training images their captions, and test images, where there are captions of those; "" to all others.

    Args:
        categories: all that is to be prepared.
        path: a folder or file as `Captions.load` takes it. Of a file of training captions, that of the test
            images is taken from beside it if it is there.

    Returns:
        The categories with captions, and notes: images without caption, captions of no image.

    Raises:
        DataError: the captions cannot be read, or an image has several; everything is listed. Or no image has one.
    """
    texts: dict[str, str] = {}
    problems = Problems()
    begin = []
    for split, captions in _read(path).items():
        ids = [sample.image_id for category in categories for sample in category.samples if sample.split == split]
        found = captions.check(ids)
        problems += found
        begin.append(f"{split}: {captions.unlike(ids)}")
        if not any(problem.fatal for problem in found):
            texts.update(zip(ids, captions.attach(ids).texts, strict=True))
    problems.stop(f"{path}: the captions do not fit the images:")
    if not any(texts.values()):
        raise DataError(f"{path}: none of the images has a caption there; {'; '.join(begin)}")
    return [_captioned(category, texts) for category in categories], problems


def _read(path: Path) -> dict[str, Captions]:
    if path.is_dir():
        splits = [split for split in ("train", "test") if any(path.glob(f"{split}_captions_*.json"))]
        return {split: Captions.load(path, split) for split in splits or ["train"]}
    for train, test in OTHER_PART.items():
        if path.name.startswith(test):
            return {"test": Captions.load(path)}
        beside = path.with_name(path.name.replace(train, test, 1))
        if path.name.startswith(train) and beside.is_file():
            return {"train": Captions.load(path), "test": Captions.load(beside)}
    return {"train": Captions.load(path)}


def _captioned(category: Category, texts: dict[str, str]) -> Category:
    samples = tuple(replace(sample, caption=texts.get(sample.image_id, "")) for sample in category.samples)
    digest = hashlib.sha256(category.fingerprint.encode())
    for sample in samples:
        digest.update(f"\0{sample.caption}".encode())
    return replace(category, samples=samples, fingerprint=digest.hexdigest())
