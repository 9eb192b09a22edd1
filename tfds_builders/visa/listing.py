"""VisA: 12 categories, 10,821 images, official one-class split. Two layouts are read.

VisA_20220922/split_csv/1cls.csv                       object,split,label,image,mask
VisA_20220922/<category>/Data/Images/{Normal/NNNN.JPG, Anomaly/NNN.JPG}, Data/Masks/Anomaly/NNN.png (small codes)

VisA_pytorch/1cls/<category>/{train/good, test/good, test/bad, ground_truth/bad}   as its authors' script makes it
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterator
from pathlib import Path

from jaxad.errors import DataError, Problem
from jaxad.io.untrusted import MEBIBYTE, bytes_of, path_fault, reading
from tfds_builders.listing import Benchmark, Sample, Split
from tfds_builders.mvtec_layout import counted, has_categories, list_category

COUNTS = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}
COLUMNS = ["object", "split", "label", "image", "mask"]
SPLITS: dict[str, Split] = {"train": "train", "test": "test"}
LONGEST = 64 * MEBIBYTE
"""Bytes of the list; VisA's has one."""
DEFECT = "anomaly"
"""The one-class split tells no types of defects."""

_is_raw = has_categories(COUNTS, "Data", "Images")
_is_sorted = has_categories(COUNTS, "train", "good")


def list_samples(root: Path, category: str) -> Iterator[Sample]:
    """The images of a category, in the order of the official list."""
    if _is_raw(root):
        yield from (sample for sample in read_list(root) if sample.category == category)
    else:
        for sample in list_category(root, category, mask_of=lambda folder, image: folder / f"{image.stem}.png"):
            yield dataclasses.replace(sample, defect=DEFECT) if sample.label else sample


def read_list(root: Path) -> list[Sample]:
    """All images of the raw layout, by split_csv/1cls.csv.

    Raises:
        DataError: the list is missing or damaged; names every line at fault.
    """
    file = root / "split_csv" / "1cls.csv"
    if not file.is_file():
        raise DataError(f"{file}: the official split is missing; it comes with the data, so unpack the archive again")
    content = bytes_of(file, LONGEST, lambda said: DataError(f"{file}: {said}; unpack the archive again"))
    with reading(lambda said: DataError(f"{file}: damaged ({said}); unpack the archive again")):
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig", errors="replace"), newline=""))
        if (head := next(reader, [])) != COLUMNS:
            raise DataError(f"{file}: needs the columns {','.join(COLUMNS)}, not {','.join(head)[:100]!r}")
        rows = {number: row for number, row in enumerate(reader, 2) if row}
    samples, problems, lines = [], [], {}
    for number, row in rows.items():
        if fault := _fault(row, lines):
            problems.append(Problem("wrong line", f"{file}:{number}", f"{fault}; unpack the archive again"))
            continue
        category, split, label, image, mask = row
        lines[image] = number
        anomalous = label == "anomaly"
        samples.append(
            Sample(
                split=SPLITS[split],
                image=root / image,
                category=category,
                label=int(anomalous),
                defect=DEFECT if anomalous else "good",
                image_id=image,
                mask=root / mask if mask else None,
            )
        )
    if problems:
        raise DataError(f"{file}: damaged, {len(problems)} lines:", problems)
    return samples


def _fault(row: list[str], lines: dict[str, int]) -> str:
    """What is wrong with a line, "" for nothing."""
    if len(row) != len(COLUMNS):
        return f"{len(row)} fields, needs {len(COLUMNS)}"
    category, split, label, image, mask = row
    if category not in COUNTS:
        return f"object {category!r} is no category"
    if split not in SPLITS:
        return f"split {split!r}, must be train or test"
    if label not in ("normal", "anomaly"):
        return f"label {label!r}, must be normal or anomaly"
    if split == "train" and label != "normal":
        return "an anomalous training image"
    if bool(mask) != (label == "anomaly"):
        return f"label {label} {'with' if mask else 'without'} a mask"
    for path in filter(None, (image, mask)):
        if not path.startswith(f"{category}/") or path_fault(path):
            return f"path {path!r} lies outside {category}/"
    return f"image named in line {lines[image]} already" if image in lines else ""


BENCHMARK = Benchmark(
    name="visa",
    title="VisA",
    homepage="https://github.com/amazon-science/spot-diff",
    license="CC BY 4.0",
    how_to_obtain=(
        "Follow the link on the page of its authors. The source is VisA_20220922.tar, or the folder with split_csv/, "
        "candle/ and so on; the folder VisA_pytorch/1cls, which its authors' script makes of it, does as well."
    ),
    is_root=lambda root: _is_raw(root) or _is_sorted(root),
    list_samples=list_samples,
    categories=tuple(COUNTS),
    counts=counted(COUNTS),
)
