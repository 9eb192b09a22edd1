"""The images of a folder that are to be judged: all but masks, small or painted copies, and results of earlier runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jaxad.data.layout.evidence import are_masks, copies_of_others, masks_beside
from jaxad.data.layout.results import LINES, REPORT
from jaxad.data.layout.tree import Folder, is_image, read_tree
from jaxad.data.layout.words import role


class Photos(NamedTuple):
    """What was found in a folder.

    Attributes:
        files: the images to judge, sorted by name, also links to nothing, so that they are named.
        masks: pictures that mark defects, which are left out.
        copies: thumbnails and overlays of other images, by their names, which are left out.
        results: pictures that `jaxad predict` or `jaxad evaluate` left there, which are left out.
        kept: folders of thumbnails, previews and trash, which are left out.
        others: files that are no images.
    """

    files: list[Path]
    masks: list[Path]
    copies: list[Path]
    results: list[Path]
    kept: list[Path]
    others: list[Path]

    def left_out(self) -> str:
        """What images were left out, in words; "" for none."""
        return ", ".join(f"{len(files)} {name} ({files[0]})" for name, files in self._images().items() if files)

    def reasons(self) -> Iterator[tuple[str, Path]]:
        """In words why something was left out, once for each folder and reason, and the first file or folder."""
        groups: dict[tuple[str, Path], Path] = {}
        for name, files in self._images().items():
            for file in files:
                groups.setdefault((f"{name} are left out", file.parent), file)
        for folder in self.kept:
            groups.setdefault(("folders of thumbnails or trash are left out", folder.parent), folder)
        for file in self.others:
            kind = f"files {file.suffix}" if file.suffix else "files without an extension"
            groups.setdefault((f"{kind} are left out, as no images", file.parent), file)
        yield from ((reason, first) for (reason, _), first in groups.items())

    def _images(self) -> dict[str, list[Path]]:
        return {
            "masks": self.masks,
            "thumbnails or overlays": self.copies,
            "pictures of earlier results": self.results,
        }


def photos(folder: Path) -> Photos:
    """Looks through a folder and its subfolders; the folder itself is taken for what the user says it is.

    Links that lead back are not followed; folders of thumbnails, trash and system files are left out without a word.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = Photos([], [], [], [], [], [])
    for below in _to_judge(read_tree(folder), found):
        copies = set(copies_of_others(below.images))
        # Of loose photos, black and white alone says nothing: names must.
        masks = masks_beside([file for file in below.images if file not in copies], by_content=False)
        # A folder of nothing else is one of parts that have such names.
        masks = masks if len(masks) < len(below.images) - len(copies) else set()
        found.copies.extend(sorted(copies))
        found.masks.extend(sorted(masks))
        own = [file for file in below.images if file not in copies | masks]
        found.files.extend(sorted([*own, *filter(is_image, below.dangling)], key=lambda path: path.name))
    return found


def _to_judge(folder: Folder, found: Photos) -> Iterator[Folder]:
    """The folder and those below it that may hold images to judge; notes what the others hold."""
    yield folder
    found.kept.extend(folder.kept)
    found.results.extend(folder.results)
    # Files in a folder of results are ours.
    if not {file.name for file in folder.others} & {LINES, REPORT}:
        found.others.extend(folder.others)
    for child in folder.folders:
        if role(child.name).part == "masks" and are_masks(child):
            found.masks.extend(child.all_images())
        else:
            yield from _to_judge(child, found)
