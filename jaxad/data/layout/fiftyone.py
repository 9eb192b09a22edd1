"""Exports of FiftyOne: FiftyOneDataset (samples.json) and FiftyOneImageClassificationDataset (labels.json)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxad.data.layout.listing import Listing
from jaxad.data.layout.table import Row, listing_of
from jaxad.data.layout.tree import image_files
from jaxad.data.layout.words import FOUND, SPLITS, Names, word
from jaxad.errors import DataError, Problem
from jaxad.io.json_files import LIST, Faults, bad_list, read_object

SAMPLES, LABELS, DATA = "samples.json", "labels.json", "data"
CATEGORY = ("category", "object", "product", "part")
DEFECT = ("defect", "defect_type", "label", "ground_truth", "anomaly")
MASK = ("defect_mask", "anomaly_mask", "mask", "ground_truth", "segmentation", "segmentations")
"""Names of fields that go before others of their kind."""


def is_export(root: Path) -> bool:
    """Whether a folder is an export of one of the two formats, whole or divided into folders of such."""
    return (root / SAMPLES).is_file() or bool(_parts(root))


def read_export(root: Path, categories: tuple[str, ...] | None = None, names: Names = FOUND) -> Listing:
    """Lists the images of an export; the words for normal images are those of folders.

    Args:
        root: its folder.
        categories: names of the categories to list; None for all.
        names: words for normal images and kinds of defects that a user has given.

    Raises:
        DataError: damaged JSON, entries of a wrong type, or several fields of labels of which none goes before.
    """
    if (root / SAMPLES).is_file():
        rows, problems = _samples(root)
    else:
        rows, problems = [], []
        for split, folder in _parts(root):
            found, said = _classified(root, folder, split)
            rows += found
            problems += said
    return listing_of(root, root.resolve().name, rows, categories=categories, names=names, problems=problems)


def _parts(root: Path) -> list[tuple[str, Path]]:
    """The folders that hold labels.json and data/, with their split: the folder itself, or train/, test/ ... in it."""
    if not root.is_dir():
        return []
    inner = [(child.name, child) for child in sorted(root.iterdir()) if word(child.name) in SPLITS]
    return [(split, f) for split, f in [("", root), *inner] if (f / LABELS).is_file() and (f / DATA).is_dir()]


def _classified(root: Path, folder: Path, split: str) -> tuple[list[Row], list[Problem]]:
    """The rows of a FiftyOneImageClassificationDataset: by the stem of each image a label, or the number of a class."""
    file, faults, problems, rows = folder / LABELS, Faults(folder / LABELS), [], []
    content = _object(file)
    classes: Any = content.get("classes")
    labels: Any = content.get("labels")
    if faults.has(classes, "classes", list, None):
        for number, name in enumerate(classes or ()):
            faults.has(name, f"classes[{number}]", str)
    faults.has(labels, "labels", dict)
    faults.stop()
    files: dict[str, list[Path]] = defaultdict(list)
    for image in image_files(folder / DATA):
        inside = image.relative_to(folder / DATA)
        for key in {inside.as_posix(), inside.with_suffix("").as_posix()}:
            files[key].append(image)
    used: set[Path] = set()
    for key, target in labels.items():
        place, images = f"{file}: labels.{key}", files.get(key, [])
        label = _target(target, classes, f"labels.{key}", faults)
        if len(images) > 1:
            names = ", ".join(image.name for image in images)
            problems.append(Problem("ambiguous image", place, f"fits {names}; keep one of them"))
        image = images[0] if images else folder / DATA / key
        used.update(images)
        if len(images) <= 1:
            rows.append(Row(place, image.relative_to(root).as_posix(), split=split, label=label))
    faults.stop()
    if others := {image for images in files.values() for image in images} - used:
        detail = f"{len(others)} images that {LABELS} does not list, e.g. {min(others).name}"
        problems.append(Problem("ignored file", str(folder / DATA), detail, fatal=False))
    return rows, problems


def _target(target: Any, classes: list[str] | None, place: str, faults: Faults) -> str:
    """The label of an image; "" for null."""
    if isinstance(target, dict):
        target = target.get("label")
    if target is None or not faults.has(target, place, str, int, None):
        return ""
    if isinstance(target, str):
        return target
    if classes is None:
        return str(target)
    if not 0 <= target < len(classes):
        faults.add(place, f"is {target}, but there are {len(classes)} classes")
        return ""
    return classes[target]


def _samples(root: Path) -> tuple[list[Row], list[Problem]]:
    """The rows of a FiftyOneDataset: fields of classifications are labels, tags say the split."""
    file = root / SAMPLES
    content, faults = _object(file), Faults(file)
    samples: Any = content.get("samples")
    if faults.has(samples, "samples", list):
        for number, sample in enumerate(samples):
            if faults.fields(sample, f"samples[{number}]", filepath=str):
                faults.has(sample.get("tags", []), f"samples[{number}].tags", list)
    faults.stop()
    labels, masks = Counter[str](), Counter[str]()
    for sample in samples:
        labels.update(name for name, value in _fields(sample) if value["_cls"] == "Classification")
        masks.update(name for name, value in _fields(sample) if value.get("mask_path"))
    category = next((name for name in CATEGORY if name in labels or any(name in sample for sample in samples)), "")
    label = _preferred(file, "labels", DEFECT, [name for name in labels if name != category])
    mask = _preferred(file, "masks", MASK, list(masks))
    problems, rows = [], []
    for number, sample in enumerate(samples):
        place = f"{file}: samples[{number}]"
        splits = {SPLITS[word(tag)]: tag for tag in sample.get("tags") or [] if word(str(tag)) in SPLITS}
        if len(splits) > 1:
            said = f"tagged as {' and '.join(splits.values())}; keep one tag"
            problems.append(Problem("contradictory labels", place, said))
        split = next(iter(splits.values()), _text(sample.get("split")))
        marked = sample.get(mask)
        path = marked.get("mask_path") if isinstance(marked, dict) else ""
        about = {"category": _text(sample.get(category)), "label": _text(sample.get(label))}
        rows.append(Row(place, sample["filepath"], split=split, mask=_text(path), **about))
    inline = sum(value.get("mask") is not None for sample in samples for _, value in _fields(sample))
    if inline:
        detail = f"{inline} masks within the JSON, which are not read; export them as files (mask_path)"
        problems.append(Problem("ignored mask", str(file), detail, fatal=False))
    return rows, problems


def _fields(sample: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The fields of a sample that hold labels of FiftyOne's."""
    for name, value in sample.items():
        if isinstance(value, dict) and isinstance(value.get("_cls"), str):
            yield name, value


def _text(value: Any) -> str:
    """The text of a field: its own, or the label that it holds."""
    if isinstance(value, dict):
        value = value.get("label")
    return value if isinstance(value, str) else ""


def _preferred(file: Path, what: str, first: Sequence[str], there: list[str]) -> str:
    """The field to take, "" where there is none."""
    if len(there) <= 1:
        return next(iter(there), "")
    if (known := next((name for name in first if name in there), None)) is not None:
        return known
    names = ", ".join(sorted(there))
    raise DataError(f"{file}: several fields hold {what}: {names}; export only one of them, or call it {first[0]}")


def _object(file: Path) -> dict[str, Any]:
    return read_object(file, size=LIST, error=lambda said: bad_list("damaged JSON", file, said))
