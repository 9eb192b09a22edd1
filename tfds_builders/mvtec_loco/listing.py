"""MVTec LOCO-AD: logical and structural anomalies, 5 categories, 3644 images.

    <category>/{train,validation}/good/NNN.png
    <category>/test/{good,logical_anomalies,structural_anomalies}/NNN.png
    <category>/ground_truth/{logical,structural}_anomalies/NNN/MMM.png          values are codes of defect types

Validation images are kept as a split of their own, which jaxad uses as hold-out. Several masks of an image are stored
as one, of 0 and 255: what any of them marks. The official metric, sPRO, needs the masks one by one and is not served.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

from tfds_builders.encode import union
from tfds_builders.listing import Benchmark, Counts, Sample
from tfds_builders.mvtec_layout import Mask, entries, has_categories, list_category

COUNTS = {
    "breakfast_box": (351, 62, 102, 173),
    "juice_bottle": (335, 54, 94, 236),
    "pushpins": (372, 69, 138, 172),
    "screw_bag": (360, 60, 122, 219),
    "splicing_connectors": (354, 59, 119, 193),
}


def list_samples(root: Path, category: str) -> Iterator[Sample]:
    """The images of a category."""
    return list_category(root, category, mask_of=_mask_of)


def _mask_of(folder: Path, image: Path) -> Mask:
    masks = tuple(file for file in entries(folder / image.stem) if file.suffix.lower() == ".png")
    if len(masks) > 1:
        return functools.partial(union, masks)
    return masks[0] if masks else folder / image.stem / "000.png"


def counts(category: str) -> Counts:
    """Official counts; logical and structural anomalies together."""
    train, validation, normal, anomalous = COUNTS[category]
    return {("train", 0): train, ("validation", 0): validation, ("test", 0): normal, ("test", 1): anomalous}


BENCHMARK = Benchmark(
    name="mvtec_loco",
    title="MVTec LOCO-AD",
    homepage="https://www.mvtec.com/company/research/datasets/mvtec-loco",
    license="CC BY-NC-SA 4.0 (non-commercial)",
    how_to_obtain=(
        "Ask MVTec for the data on its page; it comes as mvtec_loco_anomaly_detection.tar.xz. The source is the "
        "archive, or the folder with breakfast_box/, juice_bottle/ and so on."
    ),
    is_root=has_categories(COUNTS, "train", "good"),
    list_samples=list_samples,
    categories=tuple(COUNTS),
    counts=counts,
    checksums={
        "mvtec_loco_anomaly_detection.tar.xz": "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687"
    },
)
