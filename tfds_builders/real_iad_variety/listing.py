"""Real-IAD Variety: 160 kinds of parts, five views of each object, labels for each view.

    realiadvariety_raw/<category>/OK/S0001/<category>_0001_OK_C{1..5}_<time>.png
    realiadvariety_raw/<category>/NG/<code>/S0001/<category>_0001_NG_<code>_C{1..5}_<time>.png, ..._mask.png
    realiadvariety_1024/...                                           the same, reduced to 1024 x 1024 by the user
    realiadvariety_jsons[/Real-IAD_Variety_jsons]/<category>.json

Names of categories hold hyphens and even a space ("slipper- model"). A view of a defective object in which the defect
does not show has a class but no mask; it is normal.
"""

from __future__ import annotations

from pathlib import Path

from jaxad.errors import DataError, Problem
from tfds_builders.listing import Benchmark, Counts, Option, Sample
from tfds_builders.real_iad.lists import Rules, find_folder, samples

RESOLUTION = Option("resolution", ("raw", "px1024"), "the official images, or their reduction to 1024 x 1024")
FOLDERS = {"raw": "realiadvariety_raw", "px1024": "realiadvariety_1024"}
LISTS = ("realiadvariety_jsons/Real-IAD_Variety_jsons", "Real-IAD_Variety_jsons", "realiadvariety_jsons")

CATEGORIES = 160
SUBSETS = {"s1": (30, "button_switch"), "s2": (60, "gear"), "s3": (100, "motor_gear_reducer")}
"""How many of the sorted categories a subset holds, and the last of them."""


def list_samples(root: Path, category: str, *, resolution: str) -> list[Sample]:
    """The images of a category by its official list, see `tfds_builders.real_iad.lists.samples`."""
    images = find_folder(root, [FOLDERS[resolution]], f"the images ({resolution})")
    lists = find_folder(root, LISTS, "the lists")
    return samples(lists / f"{category}.json", images, category, Rules(hidden_defects=True))


def find_categories(root: Path, **options: str) -> tuple[str, ...]:
    """Names of the lists in `root`, in ASCII order, which is the official one.

    Raises:
        DataError: there are no lists; or there are all 160, but the subsets do not end where they should.
    """
    folder = find_folder(root, LISTS, "the lists")
    names = tuple(sorted(file.stem for file in folder.glob("*.json")))
    if len(names) == CATEGORIES:
        problems = [
            Problem("wrong category", str(folder), f"number {number} is {names[number - 1]!r}, officially {last!r}")
            for number, last in SUBSETS.values()
            if names[number - 1] != last
        ]
        if problems:
            raise DataError("not the official categories of Real-IAD Variety:", problems)
    return names


def is_root(folder: Path) -> bool:
    """Whether a folder holds Real-IAD Variety's images and lists."""
    lists = any(any((folder / name).glob("*.json")) for name in LISTS)
    return lists and any((folder / name).is_dir() for name in FOLDERS.values())


def category_of(archive: Path) -> str | None:
    """The category of an archive of images, which is named after it."""
    return archive.stem if archive.parent.name in FOLDERS.values() else None


def totals(*, resolution: str) -> Counts:
    """Official number of training images, in either resolution; of the test images only the sum is known, 178,995."""
    return {("train", 0): 19_955}


BENCHMARK = Benchmark(
    name="real_iad_variety",
    title="Real-IAD Variety",
    homepage="https://huggingface.co/datasets/Real-IAD/Real-IAD_Variety",
    license="as on its page, access on request, for research (Real-IAD's own: CC BY-NC-SA 4.0)",
    how_to_obtain=(
        "Ask for access at huggingface.co/datasets/Real-IAD/Real-IAD_Variety. Get realiadvariety_jsons.zip and the "
        "folder realiadvariety_raw, an archive for each category (262 GB in all), into one folder and give that "
        "folder as source. Images of 20 megapixels are slow to decode: prepare them with size = 1024."
    ),
    is_root=is_root,
    list_samples=list_samples,
    find_categories=find_categories,
    totals=totals,
    options=(RESOLUTION,),
    category_of=category_of,
    subsets=SUBSETS,
)
