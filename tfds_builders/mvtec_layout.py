"""The layout of MVTec-AD, which several data sets share.

<category>/train/good/*  [validation/good/*]  test/good/*  test/<defect>/*  ground_truth/<defect>/<stem>_mask.png
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from jaxad.data.decode import EXTENSIONS
from jaxad.errors import DataError, Problem
from tfds_builders.listing import SPLITS, Counts, Sample, Split

Mask = Path | bytes | Callable[[], bytes] | None


def mask_by_name(folder: Path, image: Path) -> Path:
    """MVTec's rule: 000.png has the mask <folder>/000_mask.png."""
    return folder / f"{image.stem}_mask.png"


def list_category(
    root: Path, category: str, *, normal: str = "good", mask_of: Callable[[Path, Path], Mask] = mask_by_name
) -> Iterator[Sample]:
    """The images of a category in the order of their paths, split by split.

    Args:
        root: the folder that holds the categories.
        category: name of the category's folder; nothing is yielded where it is missing.
        normal: name of the folders of normal images.
        mask_of: (folder ground_truth/<defect>, image) -> its mask, whether or not it exists.

    Raises:
        DataError: folders of other than normal images in train or validation; names them all.
    """
    folder = root / category
    strangers = [
        child
        for split in ("train", "validation")
        for child in entries(folder / split)
        if child.is_dir() and child.name != normal
    ]
    if strangers:
        detail = f"only {normal}/ belongs here; take it out"
        problems = [Problem("unexpected folder", str(child), detail) for child in strangers]
        raise DataError(f"{category}: images that are not normal are no training images:", problems)
    for split in SPLITS:
        for child in entries(folder / split):
            if child.is_dir():
                yield from _list_folder(root, category, split, child, normal, mask_of)


def _list_folder(
    root: Path, category: str, split: Split, folder: Path, normal: str, mask_of: Callable[[Path, Path], Mask]
) -> Iterator[Sample]:
    label = int(folder.name != normal)
    masks = root / category / "ground_truth" / folder.name
    for image in entries(folder):
        if image.suffix.lower() in EXTENSIONS:
            yield Sample(
                split=split,
                image=image,
                category=category,
                label=label,
                defect=folder.name if label else "good",
                image_id=image.relative_to(root).as_posix(),
                mask=mask_of(masks, image) if label else None,
            )


def entries(folder: Path) -> list[Path]:
    """What a folder holds, sorted by name, without hidden files; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((child for child in folder.iterdir() if not child.name.startswith(".")), key=lambda path: path.name)


def has_categories(categories: Iterable[str], *below: str) -> Callable[[Path], bool]:
    """Whether a folder holds one of the categories, with the folder `below` in it."""
    return lambda root: any(root.joinpath(category, *below).is_dir() for category in categories)


def counted(table: Mapping[str, tuple[int, int, int]]) -> Callable[[str], Counts]:
    """Official counts from rows (training, normal test, anomalous test images) by category."""

    def counts(category: str) -> Counts:
        train, normal, anomalous = table[category]
        return {("train", 0): train, ("test", 0): normal, ("test", 1): anomalous}

    return counts
