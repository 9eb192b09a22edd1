"""The images and masks of one category, and everything in its folder that is neither."""

from __future__ import annotations

import os
import re
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jaxad.data.layout.evidence import are_masks, copies_of_others, masks_beside
from jaxad.data.layout.pairing import Nearest, Picture, pair
from jaxad.data.layout.tree import Folder, is_image
from jaxad.data.layout.words import (
    DEFECTIVE,
    SPLITS,
    defect_of,
    folded,
    resembles_normal,
    without_mask,
    word,
)
from jaxad.errors import Problem
from jaxad.io.problems import Problems
from jaxad.io.text import name_text
from jaxad.types import Record

Split = Literal["train", "validation", "test"]
HINTS = 20
"""Masks without image of which the nearest name is told."""


class Category:
    """One category's records and problems, collected folder by folder.

    Args:
        root: the folder that identities are relative to.
        name: of the category.
        folder: of the category.

    Attributes:
        train, validation, test: its records.
        problems: what was left out or is wrong.
    """

    def __init__(self, root: Path, name: str, folder: Folder):
        self.root, self.name, self.folder = root, name, folder
        self.train: list[Record] = []
        self.validation: list[Record] = []
        self.test: list[Record] = []
        self.problems = Problems()
        self._masks: dict[Split, list[Picture]] = {"train": [], "validation": [], "test": []}
        self._pictures: dict[Path, Picture] = {}
        self._read()
        for split in self._masks:
            self._pair(split)
        self._review()

    def _read(self) -> None:
        split = any(child.split in ("train", "test") for child in self.folder.folders)
        for child in self.folder.folders:
            part, defect = child.role
            if part == "masks" and are_masks(child, beside_parts=split):
                part = SPLITS.get(word(without_mask(child.name) or ""), "test")
                if part in ("train", "validation") or (defect == "good" and not split):
                    self._collect_masks("validation" if part == "validation" else "train", child, ("good",))
                else:
                    self._collect_masks("test", child, (folded(defect),) if defect else ())
            elif part in ("train", "validation"):
                self._read_normal(part, child, defect)
            elif part == "test":
                self._read_test(child, defect)
            elif part == "normal":
                self._add("train", child, "good")
            elif not split:
                self._add_defect(child)
            elif child.has_images():
                self._note("ignored folder", child.path, "a category with train/ or test/ is read from these and masks")
        if is_flat(self.folder):
            self._read_flat()
        elif loose := self.folder.images:
            detail = f"{_images(loose)} beside the folders of the category, in none of them"
            self._note("ignored file", self.folder.path, detail)
        for folder in self.folder.walk():
            self._note_entries(folder)
        self.problems += kept_note(self.folder)

    def _read_flat(self) -> None:
        """Photos in no folder: normal ones to train on, unless their names say otherwise."""
        number = self._add_files("train", self.folder, "good", ())
        detail = f"{number} photos in no folder, taken for normal ones to train on"
        self._note("flat folder", self.folder.path, detail)
        told = [record.file for record in self.train if _says_defective(record.file.stem)]
        if told:
            fix = "move them into bad/ and the others into good/, or list all in a CSV file (csv:FILE)"
            self._note("unclear image", self.folder.path, f"named like defective ones: {_few(told)}; {fix}", fatal=True)

    def _read_normal(self, split: Split, folder: Folder, defect: str) -> None:
        """A folder of training or validation images: in it, in its good/, or it says good itself."""
        only_normal = f"{split}/ holds normal images only, in {split}/good"
        if defect not in ("", "good"):
            return self._note("ignored folder", folder.path, only_normal)
        before = len(self.train) + len(self.validation)
        for child in folder.folders:
            part = child.role.part
            if part == "normal" or defect:
                self._add(split, child, "good")
            elif part == "masks":
                self._collect_masks(split, child, ("good",))
            elif child.holds("normal"):
                self._unclear(child)
            elif child.has_images():
                self._note("ignored folder", child.path, only_normal)
        self._add_files(split, folder, "good", ())
        if folder.has_images() and before == len(self.train) + len(self.validation):
            names = ", ".join(f"{child.name}/" for child in folder.folders)
            detail = f"holds {names} but neither images nor good/; put normal images into {folder.name}/good"
            self._note("unclear folder", folder.path, detail, fatal=True)

    def _read_test(self, folder: Folder, defect: str) -> None:
        if defect:
            return self._add("test", folder, defect)
        for child in folder.folders:
            part, rest = child.role
            if part == "masks" and are_masks(child):
                self._collect_masks("test", child, (folded(rest),) if rest else ())
            else:
                self._add_defect(child)
        if self._add_files("test", folder, "", ()):
            self._note("unlabeled image", folder.path, "images beside test/good and test/<defect> have no label")

    def _add_defect(self, folder: Folder) -> None:
        """A folder of test images named after its defect."""
        defect, given = defect_of(folder.name, folder.names), folder.names.defects
        if defect != "good" and given and word(folder.name) not in given:
            if folder.has_images():
                self._note("ignored folder", folder.path, "not among the names of defects that were given")
            return
        if defect != "good" and folder.holds("normal"):
            return self._unclear(folder)
        if defect != "good" and not given and (normal := resembles_normal(folder.name)):
            detail = f"counts as a kind of defect; if its images are normal, put them into {normal}/"
            self._note("unclear name", folder.path, detail)
        self._add("test", folder, defect)

    def _add(self, split: Split, folder: Folder, defect: str, below: tuple[str, ...] = ()) -> None:
        """All images of a folder, but for the masks in it."""
        self._add_files(split, folder, defect, below)
        for child in folder.folders:
            if child.role.part == "masks" and are_masks(child):
                self._collect_masks(split, child, (folded(defect), *below))
            else:
                self._add(split, child, defect, (*below, folded(child.name)))

    def _add_files(self, split: Split, folder: Folder, defect: str, below: tuple[str, ...]) -> int:
        """The images directly in a folder; masks and small or painted copies beside them are set apart."""
        if copies := copies_of_others(folder.images):
            detail = f"{_images(copies)} that are thumbnails or overlays of others by their names: {_few(copies)}"
            self._note("ignored file", folder.path, detail)
        aside = set(copies)
        images = [file for file in folder.images if file not in aside]
        masks = masks_beside(images, by_content=split == "test")
        self._masks[split] += [Picture(mask, folded(defect), below) for mask in sorted(masks)]
        images = [image for image in images if image not in masks]
        for file in images:
            self._pictures[file] = Picture(file, folded(defect), below)
            label = None if not defect else int(defect != "good")
            identity = name_text(file.relative_to(self.root).as_posix())
            getattr(self, split).append(Record(file, self.name, label, name_text(defect), identity=identity))
        return len(images)

    def _collect_masks(self, split: Split, folder: Folder, place: tuple[str, ...]) -> None:
        """The masks of a folder, by the defect that it, or a folder in it, is named after."""
        defect, *below = place or ("",)
        self._masks[split] += [Picture(image, defect, tuple(below)) for image in folder.images]
        for child in folder.folders:
            part, rest = child.role
            named, given = defect_of(child.name, child.names), child.names.defects
            if not place and not part and named != "good" and given and word(child.name) not in given:
                continue
            if word(child.name) in SPLITS or (part == "masks" and not rest):
                self._collect_masks(split, child, place)
            else:
                name = folded(rest if part == "masks" else child.name)
                self._collect_masks(split, child, (*place, name) if place else (folded(defect_of(name, child.names)),))

    def _pair(self, split: Split) -> None:
        """Gives the images of a part their masks. Those of normal images mark nothing, or the doctor says so."""
        records = getattr(self, split)
        images = [self._pictures[record.file] for record in records]
        pairing = pair(images, self._masks[split])
        setattr(self, split, [replace(record, mask=pairing.masks.get(record.file)) for record in records])
        for mask, files in pairing.ambiguous.items():
            detail = f"fits in several ways: {_few(files)}; leave one mask for each image, named as the image"
            self._note("ambiguous mask", mask, detail, fatal=True)
        free = [image for image in images if image.file not in pairing.masks]
        nearest = Nearest(free)
        for number, mask in enumerate(pairing.unmatched):
            # Names are compared with all others, which takes long.
            near = nearest(mask) if number < HINTS else None
            hint = f"; did you mean {near.file.relative_to(self.folder.path)}?" if near else "; remove or rename it"
            detail = f"no {split} image of that name in the folder of that defect{hint}"
            self._note("mask without image", mask.file, detail, fatal=True)

    def _review(self) -> None:
        if not self.train and not self.test:
            return self._note("empty category", self.folder.path, "holds no image; fill or remove it", fatal=True)
        if not self.train:
            self._note("no training image", self.folder.path, "train/good is missing or empty")
        if any(record.mask for record in self.test):
            for record in self.test:
                if record.label and record.mask is None:
                    detail = f"other images of {self.name} have masks; pixel metrics leave this one out"
                    self._note("image without mask", record.file, detail)

    def _note_entries(self, folder: Folder) -> None:
        """Says what in a folder is no data: links to nothing, other files, thumbnails."""
        for link in folder.dangling:
            target = link.readlink()
            self._note("dangling link", link, f"leads to {target}, which is not there; mend it", fatal=is_image(link))
        others = folder.others if folder is not self.folder else [f for f in folder.others if f.suffix in ARCHIVES]
        if others:
            ends = ", ".join(sorted({file.suffix or file.name for file in others}))
            self._note("ignored file", folder.path, f"files that are no images by their extension: {ends}")

    def _unclear(self, folder: Folder) -> None:
        detail = "holds good/ itself, like a whole category; is it one? Then move it beside the others"
        self._note("unclear folder", folder.path, detail, fatal=True)

    def _note(self, kind: str, path: Path, detail: str, *, fatal: bool = False) -> None:
        self.problems.add(kind, path, detail, fatal=fatal)


def is_flat(folder: Folder) -> bool:
    """Whether a folder holds photos and no folder that has others or is named as a part."""
    return bool(folder.images) and not any(child.has_images() or child.role.part for child in folder.folders)


def _says_defective(stem: str) -> bool:
    """Whether a word for defective parts is in a name, as in ng_0007, and none that denies it, as in defect_free_7."""
    tokens = set(re.split(r"[_\d.]+", word(stem)))
    return bool(DEFECTIVE & tokens) and not {"free", "no", "not", "non"} & tokens


def kept_note(folder: Folder) -> list[Problem]:
    """What is left out of a folder as thumbnails and the like, in one note."""
    kept = [place for below in folder.walk() for place in below.kept]
    number = sum(is_image(Path(name)) for place in kept for _, _, names in os.walk(place) for name in names)
    if not number:
        return []
    names = ", ".join(sorted({place.name for place in kept}))
    detail = f"{number} pictures in folders of thumbnails, trash or libraries: {names}"
    return [Problem("ignored folder", str(kept[0]), detail, fatal=False)]


ARCHIVES = frozenset((".zip", ".tar", ".gz", ".tgz", ".xz", ".7z", ".rar"))


def _images(files: Sized) -> str:
    return f"{len(files)} image{'' if len(files) == 1 else 's'}"


def _few(files: list[Path], most: int = 4) -> str:
    shown = ", ".join(file.name for file in files[:most])
    return shown + (f" and {len(files) - most} more" if len(files) > most else "")
