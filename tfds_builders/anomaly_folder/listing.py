"""One's own folder of parts, in any of the forms that jaxad reads (jaxad.data.layout)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jaxad.data.layout import Listing, scan
from jaxad.errors import DataError
from jaxad.io.text import file_name
from tfds_builders.listing import Benchmark, Sample, Split


def find_categories(root: Path) -> tuple[str, ...]:
    """Names of the categories, sorted."""
    listing = scan(root)
    return tuple(sorted({record.category for record in (*listing.train, *listing.validation, *listing.test)}))


def list_samples(root: Path, category: str, survey: Listing | None = None) -> Iterator[Sample]:
    """The images of a category in the order of their paths.

    Args:
        root, category: which.
        survey: `scan(root)`, where it is known.

    Raises:
        DataError: masks without images, an empty category; all are named.
    """
    listing = scan(root, (category,)) if survey is None else survey
    own = root / file_name(category)
    folder = own if own.is_dir() else root
    if fatal := [
        problem for problem in listing.problems if problem.fatal and Path(problem.file).is_relative_to(folder)
    ]:
        raise DataError(f"{category} cannot be used as it is:", fatal)
    parts: dict[Split, tuple] = {"train": listing.train, "validation": listing.validation, "test": listing.test}
    for split, records in parts.items():
        for record in (record for record in records if record.category == category):
            yield Sample(
                split=split,
                image=record.file,
                category=record.category,
                label=-1 if record.label is None else record.label,
                defect=record.defect,
                image_id=record.identity,
                mask=record.mask,
            )


def is_root(folder: Path) -> bool:
    """Whether the folder holds categories or is itself one."""
    try:
        return bool(scan(folder))
    except DataError:
        return False


BENCHMARK = Benchmark(
    name="anomaly_folder",
    title="A folder of one's own",
    homepage="",
    license="the owner's",
    how_to_obtain=(
        "The source is a folder of categories, each with train/good, test/good, test/DEFECT and "
        "ground_truth/DEFECT/NAME_mask.png, or simply with good/ and DEFECT/; an archive of one does as well."
    ),
    is_root=is_root,
    list_samples=list_samples,
    survey=scan,
    find_categories=find_categories,
    masks_required=False,
)
