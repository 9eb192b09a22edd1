"""Captions of images, attached by image; the files are described in `jaxad.data.captions.files`."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from jaxad.data.captions.files import kind_of, read_captions
from jaxad.data.source import ImageSource
from jaxad.errors import DataError, Problem
from jaxad.io.places import expanded

MISSING, SURPLUS, DUPLICATE = "missing caption", "surplus caption", "duplicate caption"
LISTED = 50
"""Problems of one kind that are listed one by one; the others are counted."""


@dataclass(frozen=True)
class Captions:
    """Texts and the images they describe.

    Attributes:
        source: the folder or file they were read from, for messages.
        ids: image of each text: a path, or with `numbered` a COCO image number of twelve digits.
        texts: the captions.
        numbered: whether ids are image numbers.
        kind: captioner and prompt, "" where the names of files do not tell; captions of other kinds are other inputs.
    """

    source: str
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    numbered: bool = False
    kind: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def load(cls, path: str | Path, split: str = "train") -> Captions:
        """Reads a folder or a file in one of the published layouts.

        Args:
            path: a `..._captions_...` folder, whose parts `_{start}_{end}` are joined; one captions file, whose labels
                lie beside it; or a COCO annotation file. COCO's own, by people, has several captions of an image;
                they are joined by spaces.
            split: "train" or "test", where `path` is a folder.

        Raises:
            DataError: with every problem found: no such file, damaged JSON, entries of a wrong type, parts that leave
                gaps or overlap, lists of unequal length.
        """
        path = expanded(path)
        return cls(str(path), *read_captions(path, split), kind=kind_of(path))

    def check(self, ids: Sequence[str]) -> list[Problem]:
        """Compares with the images of a data set.

        Args:
            ids: paths of all images that should have a caption, relative to the data set, in its order.

        Returns:
            Fatal problems of kind "duplicate caption"; notes of kind "missing caption" and "surplus caption" (its image
            is not among `ids`; COCO's, which are of all its images, may be). The order may be any: a label names its
            image, and the published lists of MVTec-AD are shuffled.
        """
        keys = dict(zip(map(self._key, ids), ids, strict=True))
        root = self._root(keys)
        labels = [label.removeprefix(root) for label in self.ids]
        counts = Counter(labels)
        missing = (f"{image} has no caption" for key, image in keys.items() if key not in counts)
        problems = self._listed(MISSING, missing, fatal=False)
        repeated = (f"{label} has {number} captions, keep one" for label, number in counts.items() if number > 1)
        problems += self._listed(DUPLICATE, repeated)
        surplus = (f"{label} is no image of the data set" for label in self.surplus(ids))
        return problems + self._listed(SURPLUS, surplus, fatal=False)

    def surplus(self, ids: Sequence[str]) -> list[str]:
        """Labels, below the data set's folder, of captions whose image is not among `ids`, as for `check`."""
        # COCO's captions cover all its images, and a split is part of them.
        if self.numbered:
            return []
        known = set(ids)
        root = self._root(known)
        return [label for label in dict.fromkeys(label.removeprefix(root) for label in self.ids) if label not in known]

    def unlike(self, ids: Sequence[str]) -> str:
        """How labels and images begin, for messages where none fits another."""
        return f"labels begin with {next(iter(self.ids), 'none at all')}, the images with {next(iter(ids), 'none')}"

    def attach(self, ids: Sequence[str]) -> Captions:
        """The captions of a data set's images, under its own paths and in its order; "" for images without one.

        Args:
            ids: as for `check`.

        Raises:
            DataError: every fatal problem of `check`.
        """
        if fatal := [problem for problem in self.check(ids) if problem.fatal]:
            raise DataError(f"{self.source}: the captions do not fit the data set:", fatal)
        root = self._root({self._key(image): image for image in ids})
        texts = (self._index.get(root + self._key(image), "") for image in ids)
        return Captions(self.source, tuple(ids), tuple(texts), kind=self.kind)

    def of_files(self, files: Iterable[Path]) -> list[str]:
        """The captions of image files that belong to no data set; "" for files without one.

        A file has the caption whose label ends its whole path, the longest such label; or that of its number.
        """
        if self.numbered:
            return [self._index.get(self._key(file.as_posix()), "") for file in files]
        return [next((self._index[end] for end in _ends(file) if end in self._index), "") for file in files]

    @cached_property
    def _index(self) -> dict[str, str]:
        return dict(zip(self.ids, self.texts, strict=True))

    def _key(self, image: str) -> str:
        return PurePosixPath(image).stem.zfill(12) if self.numbered else image

    def _root(self, known: Collection[str]) -> str:
        """What stands before the data set's own paths in the labels: the folder it lay in when it was captioned."""
        for label in self.ids:
            parts = label.split("/")
            for start in range(len(parts)):
                if "/".join(parts[start:]) in known:
                    return "".join(f"{part}/" for part in parts[:start])
        return ""

    def _listed(self, kind: str, details: Iterable[str], *, fatal: bool = True) -> list[Problem]:
        every = list(details)
        problems = [Problem(kind, self.source, detail, fatal) for detail in every[:LISTED]]
        if len(every) > LISTED:
            problems.append(Problem(kind, self.source, f"and {len(every) - LISTED} more", fatal))
        return problems


def _ends(file: Path) -> Iterable[str]:
    """A file's absolute path, and its ends, the longest first; its name alone could be that of another."""
    path = Path(os.path.abspath(file))
    yield path.as_posix()
    for start in range(1, len(path.parts) - 1):
        yield "/".join(path.parts[start:])


def with_captions(source: ImageSource, captions: Captions) -> ImageSource:
    """The same images with their captions in `Record.caption`, "" for those that have none.

    Raises:
        DataError: two captions of an image.
    """
    texts = captions.attach([record.identity for record in source.records]).texts
    records = zip(source.records, texts, strict=True)
    described: Any = source  # Every source is a dataclass of its own.
    return dataclasses.replace(described, records=tuple(dataclasses.replace(r, caption=text) for r, text in records))
