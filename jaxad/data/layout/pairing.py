"""Which mask belongs to which image, by their names."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from jaxad.data.layout.words import folded, without_mask


@dataclass(frozen=True)
class Picture:
    """An image or a mask, and where it stands among those of its category.

    Attributes:
        file: where it is.
        defect: folder of the defect, folded; "good" for normal images, "" where none is named.
        below: folders between that and the file, folded.
    """

    file: Path
    defect: str = ""
    below: tuple[str, ...] = ()

    @property
    def place(self) -> tuple[str, ...]:
        """The folders it lies in."""
        return self.defect, *self.below


@dataclass
class Pairing:
    """Masks by image, and the masks that no image or no single image fits.

    Attributes:
        masks: the mask's file by the image's.
        ambiguous: for each mask that fits in several ways, all files concerned.
        unmatched: masks of no image.
    """

    masks: dict[Path, Path] = field(default_factory=dict)
    ambiguous: dict[Path, list[Path]] = field(default_factory=dict)
    unmatched: list[Picture] = field(default_factory=list)


Keys = Callable[[Picture, str], Hashable]
"""(an image or a mask, a name for it) -> what both must have in common."""


def _exact(picture: Picture, name: str) -> Hashable:
    return picture.place, name


def _stem(picture: Picture, name: str) -> Hashable:
    return picture.place, PurePath(name).stem


def _folded_stem(picture: Picture, name: str) -> Hashable:
    return picture.place, folded(PurePath(name).stem)


def _anywhere(picture: Picture, name: str) -> Hashable:
    return folded(PurePath(name).stem)


def pair(images: Sequence[Picture], masks: Sequence[Picture]) -> Pairing:
    """Gives every mask its image.

    The names must agree, the mask's with or without a word such as "_mask": first exactly and with the extension, so
    that of two images of one stem each gets its own; then without it; then in any case and composition of accents. The
    folders must agree too. A mask that lies in no defect's folder takes an anomalous image, else any, of its name,
    and a folder named as an image holds masks of that image (MVTec LOCO).

    What fits in several ways is not decided: several masks of one image, or several images of one mask.
    """
    pairing = Pairing()
    left = list(masks)
    for keys in (_exact, _stem, _folded_stem):
        left = _match(pairing, images, left, keys, _names)
    loose = [mask for mask in left if not mask.defect]
    for candidates in ([image for image in images if image.defect not in ("", "good")], images):
        loose = _match(pairing, candidates, loose, _anywhere, _names)
    within = [mask for mask in left if mask.defect and mask.below]
    within = _match(pairing, images, within, _folded_stem, _folder_name)
    pairing.unmatched = loose + within + [mask for mask in left if mask.defect and not mask.below]
    return pairing


class Nearest:
    """The image whose name comes nearest to that of a mask, None where none is near.

    The same name in another folder comes first, then the same number with other zeros, then a name that resembles it.
    """

    def __init__(self, images: Iterable[Picture]):
        self._by_stem = {folded(image.file.stem): image for image in images}
        self._numbers = {name.lstrip("0"): image for name, image in self._by_stem.items()}

    def __call__(self, mask: Picture) -> Picture | None:
        stem = folded(without_mask(mask.file.stem) or mask.file.stem)
        if stem in self._by_stem:
            return self._by_stem[stem]
        if (bare := stem.lstrip("0")) in self._numbers:
            return self._numbers[bare]
        close = difflib.get_close_matches(stem, self._by_stem, 1, cutoff=0.75)
        return self._by_stem[close[0]] if close else None


def _names(mask: Picture) -> Iterator[tuple[Picture, str]]:
    yield mask, mask.file.name
    if (rest := without_mask(mask.file.stem)) is not None:
        yield mask, rest + mask.file.suffix


def _folder_name(mask: Picture) -> Iterator[tuple[Picture, str]]:
    # The dot keeps a name such as "a.b" whole, of which the stem is taken later.
    yield Picture(mask.file, mask.defect, mask.below[:-1]), f"{mask.below[-1]}.png"


def _match(
    pairing: Pairing,
    images: Iterable[Picture],
    masks: Sequence[Picture],
    keys: Keys,
    names: Callable[[Picture], Iterator[tuple[Picture, str]]],
) -> list[Picture]:
    """Pairs what agrees under these keys, and gives the masks that agree with no image that is free."""
    free: dict[Hashable, list[Path]] = defaultdict(list)
    for image in images:
        if image.file not in pairing.masks:
            free[keys(image, image.file.name)].append(image.file)
    choices = {mask.file: {file for place in names(mask) for file in free.get(keys(*place), ())} for mask in masks}
    left = [mask for mask in masks if not choices[mask.file]]
    choices = {mask: files for mask, files in choices.items() if files}
    # A mask with one choice takes it, which may leave another mask with one.
    while True:
        wanted: dict[Path, list[Path]] = defaultdict(list)
        for mask, files in choices.items():
            if len(files) == 1:
                wanted[next(iter(files))].append(mask)
        settled = {image: found[0] for image, found in wanted.items() if len(found) == 1}
        if not settled:
            break
        pairing.masks.update(settled)
        taken = set(settled.values())
        choices = {mask: files - settled.keys() for mask, files in choices.items() if mask not in taken}
        left += [mask for mask in masks if mask.file in choices and not choices[mask.file]]
        choices = {mask: files for mask, files in choices.items() if files}
    rivals: dict[Path, set[Path]] = defaultdict(set)
    for mask, files in choices.items():
        for image in files:
            rivals[image].add(mask)
    for mask, files in choices.items():
        others = set().union(*(rivals[image] for image in files)) - {mask}
        pairing.ambiguous[mask] = sorted(files) + sorted(others)
    return left
