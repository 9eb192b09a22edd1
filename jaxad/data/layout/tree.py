"""A folder with all that is in it, every entry classified by name before anything is counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jaxad.data.decode import EXTENSIONS
from jaxad.data.layout.results import is_folder_of_results, is_result
from jaxad.data.layout.words import FOUND, Names, Role, folded, is_kept_copy, is_preview, is_system, role
from jaxad.data.region import NAMES as REGIONS
from jaxad.errors import DataError
from jaxad.io.locks import is_ours


@dataclass
class Folder:
    """A folder; entries are sorted by name, and hidden and system files are left out.

    Attributes:
        path: where it is.
        folders: those in it that may hold data. Linked ones are read, but none is entered from within itself.
        images: files whose extension is that of an image.
        others: files of other extensions.
        dangling: links to nothing.
        kept: folders of thumbnails, trash and the like, which are not entered.
        regions: files that say which part of images is judged.
        results: pictures that jaxad has made of images, in it and in folders of such, which are not entered.
        names: what a user says of names.
    """

    path: Path
    folders: list[Folder] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    dangling: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)
    regions: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    names: Names = FOUND

    @property
    def name(self) -> str:
        """Its own name."""
        return self.path.name

    @property
    def role(self) -> Role:
        """What its name says it holds."""
        return role(self.name, self.names)

    @property
    def split(self) -> str:
        """The part that it is named after, "train" of train/ but not of train_good/; "" where it is none."""
        return self.role.part if not self.role.defect else ""

    def walk(self) -> Iterator[Folder]:
        """The folder itself and all below it, depth first."""
        yield self
        for child in self.folders:
            yield from child.walk()

    def all_images(self) -> list[Path]:
        """The images in it and below it."""
        return [image for folder in self.walk() for image in folder.images]

    def has_images(self) -> bool:
        """Whether there is an image in it or below it."""
        return any(folder.images for folder in self.walk())

    def has_files(self) -> bool:
        """Whether there is any file in it or below it."""
        return any(folder.images or folder.others or folder.dangling or folder.kept for folder in self.walk())

    def holds(self, *parts: str) -> bool:
        """Whether one of its folders is named as one of these parts, such as "train" or "normal"."""
        return any(child.role.part in parts for child in self.folders)


def read_tree(path: Path, names: Names = FOUND, above: tuple[Path, ...] = ()) -> Folder:
    """Lists a folder and all below it.

    Args:
        path: the folder.
        names: what a user says of names.
        above: resolved folders in which it lies, by whatever links.

    Raises:
        DataError: a folder cannot be listed.
    """
    real = path.resolve()
    found, above = Folder(path, names=names), (*above, real)
    for child in _entries(path):
        name = child.name
        is_folder = child.is_dir()
        if is_folder and is_kept_copy(name):
            found.kept.append(child)
        elif is_system(name) or (is_folder and is_ours(child)):
            # Ours is what this command itself is writing, such as a workdir beside the categories.
            continue
        elif is_folder:
            resolved = child.resolve()
            # Links can also form a loop across two trees that lie side by side.
            if resolved in above or (child.is_symlink() and real.is_relative_to(resolved)):
                continue
            below = read_tree(child, names, above)
            if is_preview(name) and not below.holds("train", "test", "normal"):
                found.kept.append(child)
            else:
                found.folders.append(below)
        elif child.is_symlink() and not child.exists():
            found.dangling.append(child)
        elif folded(name) in REGIONS:
            found.regions.append(child)
        else:
            (found.images if is_image(child) else found.others).append(child)
    _set_results_apart(found)
    return found


def _set_results_apart(folder: Folder) -> None:
    """Takes pictures that jaxad has made out of a folder that holds photos besides."""
    beside = {file.name for file in folder.others}
    ours = [f for f in folder.folders if is_folder_of_results(f.name, {file.name for file in f.others}, beside)]
    folder.folders = [child for child in folder.folders if child not in ours]
    folder.results = [image for image in folder.images if is_result(image.name, beside)]
    folder.images = [image for image in folder.images if image not in folder.results]
    folder.results += [image for child in ours for below in child.walk() for image in (*below.images, *below.results)]


def is_image(path: Path) -> bool:
    """Whether a file has the extension of an image."""
    return path.suffix.lower() in EXTENSIONS


def image_files(folder: Path) -> list[Path]:
    """Every image file in a folder and its subfolders, sorted by name, also links to nothing, so that they are named.

    Links that lead back are not followed; thumbnails, trash and system files are left out.
    """
    return [
        path
        for below in read_tree(folder).walk()
        for path in sorted([*below.images, *filter(is_image, below.dangling)], key=lambda path: path.name)
    ]


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError as error:
        raise DataError(f"{folder}: cannot list the folder ({error.strerror}); check its permissions") from error
