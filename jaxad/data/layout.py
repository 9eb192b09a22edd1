"""Finds the images, masks and categories of a folder in MVTec layout, by name alone; nothing is decoded.

    <category>/train/good/*                       normal images for training
    <category>/validation/good/*                  normal images for the threshold alone, optional (MVTec LOCO, AD 2)
    <category>/test/good/*, test/<defect>/*       normal and defective images for testing
    <category>/ground_truth/<defect>/<stem>_mask.* or <stem>.*       masks, optional
    <category>/good/*, <category>/<defect>/*      the same without train/ and test/: good trains, the others test

Extensions and case are free; `good` may be called `normal` or `ok`, `ground_truth` `masks`. Hidden and system files are
ignored. Linked files and folders are read, but no folder is entered from within itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxad.data.decode import EXTENSIONS
from jaxad.errors import DataError, Problem
from jaxad.io.places import expanded
from jaxad.io.problems import Problems
from jaxad.io.text import name_text, typed
from jaxad.types import Record

NORMAL = frozenset({"good", "normal", "ok"})
MASKS = frozenset({"ground_truth", "masks"})
SYSTEM = frozenset({"thumbs.db", "desktop.ini", "__macosx", "$recycle.bin"})


@dataclass(frozen=True)
class Listing:
    """What a folder holds.

    Attributes:
        root: the folder.
        train, validation, test: records in the order of their identities.
        problems: what the names alone tell: empty categories, masks without image, notes on what is left out.
    """

    root: Path
    train: tuple[Record, ...]
    validation: tuple[Record, ...]
    test: tuple[Record, ...]
    problems: tuple[Problem, ...] = field(default=())


def scan(root: str | Path, categories: tuple[str, ...] | None = None) -> Listing:
    """Lists a folder that holds categories or is itself one.

    Args:
        root: the folder.
        categories: names of the categories to list, as the file system or `jaxad.io.text` has them; None for all.

    Raises:
        DataError: the folder is missing, holds no category, or lacks one of `categories`.
    """
    root = expanded(root)
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; give a folder in MVTec layout, e.g. folder:parts with parts/screw/train/good"
        )
    if _is_category(root):
        folders = {name_text(root.resolve().name): root}
        problems = []
    else:
        children = {name_text(child.name): child for child in _entries(root)[0]}
        folders = {name: child for name, child in children.items() if _is_category(child)}
        problems = [_outside(child) for name, child in children.items() if name not in folders]
    if not folders:
        raise DataError(
            f"{root}: holds no category; needs category/train/good, category/test or category/good with images in them"
        )
    if categories is not None:
        categories = tuple(typed(name, folders) for name in categories)
        missing = [name for name in categories if name not in folders]
        if missing:
            raise DataError(f"{root}: no category {', '.join(missing)}; there are {', '.join(folders)}")
        folders = {name: folder for name, folder in folders.items() if name in categories}
    train, validation, test = [], [], []
    for name, folder in folders.items():
        found = _Category(root, name, folder)
        train += found.train
        validation += found.validation
        test += found.test
        problems += found.problems
    named = tuple(problem for problem in problems if problem is not None)
    return Listing(root, _ordered(train), _ordered(validation), _ordered(test), named)


def image_files(folder: Path) -> list[Path]:
    """Every image file in a folder and its subfolders, sorted by name; links that lead back are not followed."""
    return [path for path in _walk(folder) if path.suffix.lower() in EXTENSIONS]


class _Category:
    """One category's records and problems, collected folder by folder."""

    def __init__(self, root: Path, name: str, folder: Path):
        self.root, self.name, self.folder = root, name, folder
        self.train: list[Record] = []
        self.validation: list[Record] = []
        self.test: list[Record] = []
        self.problems = Problems()
        folders, _ = _entries(folder)
        self.masks: dict[str, dict[str, Path]] = {}
        for child in folders:
            if child.name.lower() in MASKS:
                defects, loose = _entries(child)
                for defect in defects:
                    self.masks.setdefault(_defect(defect).lower(), {}).update(_masks_of(defect))
                if loose:
                    self._note(
                        "ignored file", child, f"masks belong in folders named after defects: {child.name}/<defect>"
                    )
        split = any(child.name.lower() in ("train", "test") for child in folders)
        for child in folders:
            self._read(child, split)
        self._review()

    def _read(self, child: Path, split: bool) -> None:
        kind = child.name.lower()
        if kind in MASKS:
            return
        if kind in ("train", "validation"):
            records = self.train if kind == "train" else self.validation
            for folder in _entries(child)[0]:
                if folder.name.lower() in NORMAL:
                    self._add(records, folder, "good")
                else:
                    self._note("ignored folder", folder, f"{kind}/ holds normal images only, in {kind}/good")
            self._add(records, child, "good", deep=False)
        elif kind == "test":
            for folder in _entries(child)[0]:
                self._add(self.test, folder, _defect(folder))
            if self._add(self.test, child, "", deep=False):
                self._note("unlabeled image", child, "images beside test/good and test/<defect> have no label")
        elif kind in NORMAL:
            self._add(self.train, child, "good")
        elif not split:
            self._add(self.test, child, child.name)
        elif image_files(child):
            self._note("ignored folder", child, "a category with train/ or test/ is read from these and ground_truth/")

    def _add(self, records: list[Record], folder: Path, defect: str, *, deep: bool = True) -> int:
        files = list(_walk(folder)) if deep else _entries(folder)[1]
        images = [file for file in files if file.suffix.lower() in EXTENSIONS]
        if others := sorted({file.suffix or file.name for file in files} - {file.suffix for file in images}):
            self._note("ignored file", folder, f"files that are no images by their extension: {', '.join(others)}")
        masks = self.masks.get(defect.lower(), {}) if records is self.test else {}
        for file in images:
            key = _key(folder, file)
            mask = masks.get(f"{key}_mask") or masks.get(key)
            records.append(
                Record(
                    file=file,
                    category=self.name,
                    label=None if not defect else int(defect != "good"),
                    defect=name_text(defect),
                    mask=mask,
                    identity=name_text(file.relative_to(self.root).as_posix()),
                )
            )
        return len(images)

    def _note(self, kind: str, path: Path, detail: str, *, fatal: bool = False) -> None:
        self.problems.add(kind, path, detail, fatal=fatal)

    def _review(self) -> None:
        if not self.train and not self.test:
            return self._note("empty category", self.folder, "holds no image; fill or remove it", fatal=True)
        used = {record.mask for record in self.test}
        for masks in self.masks.values():
            for mask in masks.values():
                if mask not in used:
                    detail = "no test image of that name in the folder of that defect; remove or rename it"
                    self._note("mask without image", mask, detail, fatal=True)
        if not self.train:
            self._note("no training image", self.folder, "train/good is missing or empty")
        if used - {None}:
            for record in self.test:
                if record.label and record.mask is None:
                    detail = f"other images of {self.name} have masks; pixel metrics leave this one out"
                    self._note("image without mask", record.file, detail)


def _is_category(folder: Path) -> bool:
    names = {child.name.lower() for child in _entries(folder)[0]}
    return bool(names & ({"train", "test"} | NORMAL))


def _outside(folder: Path) -> Problem | None:
    if not any(True for _ in _walk(folder)):
        return Problem("empty category", str(folder), "holds no file; fill or remove it", fatal=True)
    if image_files(folder):
        return Problem("ignored folder", str(folder), "holds images but no train/, test/ or good/", fatal=False)
    return None


def _masks_of(folder: Path) -> dict[str, Path]:
    return {_key(folder, file): file for file in image_files(folder)}


def _key(folder: Path, file: Path) -> str:
    """What an image and its mask have in common."""
    return file.relative_to(folder).with_suffix("").as_posix().lower()


def _defect(folder: Path) -> str:
    return "good" if folder.name.lower() in NORMAL else folder.name


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Folders and files in a folder, each sorted by name, without hidden and system ones and links to folders above."""
    real = folder.resolve()
    folders, files = [], []
    try:
        for name in sorted(os.listdir(folder)):
            child = folder / name
            if name.startswith(".") or name.lower() in SYSTEM:
                continue
            if not child.is_dir():
                files.append(child)
            elif not (child.is_symlink() and real.is_relative_to(child.resolve())):
                folders.append(child)
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder ({error.strerror}); check its permissions") from error
    return folders, files


def _walk(folder: Path, above: tuple[Path, ...] = ()) -> Iterator[Path]:
    # Links can also form a loop across two trees that lie side by side.
    real = folder.resolve()
    if real in above:
        return
    folders, files = _entries(folder)
    yield from files
    for child in folders:
        yield from _walk(child, (*above, real))


def _ordered(records: list[Record]) -> tuple[Record, ...]:
    return tuple(sorted(records, key=lambda record: record.identity))
