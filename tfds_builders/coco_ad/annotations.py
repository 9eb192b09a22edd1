"""COCO's instance annotations, checked and reduced to what COCO-AD needs.

A file of 450 MB is parsed once in a process and kept as a few numbers for each image.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from jaxad.io.json_files import ANNOTATIONS, Faults, read_json
from jaxad.io.untrusted import path_fault

CATEGORY_IDS = (
    *range(1, 12), *range(13, 22),
    *range(22, 26), 27, 28, *range(31, 45),
    *range(46, 66),
    67, 70, *range(72, 83), *range(84, 91),
)  # fmt: skip
"""COCO's numbers of its 80 categories, in order; split k takes 20 of them, from 20 k, as anomalous."""

LARGEST = 1 << 28
"""Pixels of an image."""
FARTHEST = 1 << 16
"""Pixels from an image's corner to a point of a polygon."""


class Annotation(NamedTuple):
    """One object: its category's place in `CATEGORY_IDS`, its polygons or run-length encoding."""

    category: int
    segmentation: Any


class Image(NamedTuple):
    """An image with at least one annotation.

    Attributes:
        file_name: name in its folder.
        height, width: size in pixels.
        categories: bit i is set if category i (its place in `CATEGORY_IDS`) is annotated.
        annotations: its objects; empty where segmentations were not asked for.
    """

    file_name: str
    height: int
    width: int
    categories: int
    annotations: tuple[Annotation, ...] = ()


class Instances(NamedTuple):
    """The annotated images of a file, in the order of their first annotation, and the names of the 80 categories."""

    images: tuple[Image, ...]
    names: tuple[str, ...]


def read_instances(file: Path, *, segmentations: bool) -> Instances:
    """Reads `instances_*2017.json`; images without annotation are left out.

    Args:
        file: the annotation file.
        segmentations: keep polygons and encodings; without, they are neither kept nor checked.

    Raises:
        DataError: with every entry that is wrong.
    """
    state = file.stat() if file.is_file() else None
    return _read(file, segmentations, state and (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=4)
def _read(file: Path, segmentations: bool, state: tuple[int, int] | None) -> Instances:
    content = read_json(file, None if segmentations else _without_segmentation, size=ANNOTATIONS)
    faults = Faults(file)
    if not faults.fields(content, "the file", images=list, annotations=list, categories=list):
        faults.stop()
    names = _category_names(content["categories"], faults)
    sizes = _images(content["images"], faults)
    places = {number: place for place, number in enumerate(CATEGORY_IDS)}
    categories: dict[int, int] = {}
    objects: dict[int, list[Annotation]] = {}
    for number, entry in enumerate(content["annotations"]):
        place = f"annotations[{number}]"
        if not faults.fields(entry, place, image_id=int, category_id=int):
            continue
        image, category = entry["image_id"], entry["category_id"]
        if image not in sizes:
            faults.add(f"{place}.image_id", f"{image} is no sound image of the file")
        elif category not in places:
            faults.add(f"{place}.category_id", f"{category} is none of COCO's 80 categories")
        else:
            categories[image] = categories.get(image, 0) | 1 << places[category]
            if segmentations and _is_sound(entry.get("segmentation"), sizes[image], f"{place}.segmentation", faults):
                objects.setdefault(image, []).append(Annotation(places[category], entry["segmentation"]))
    faults.stop()
    images = (Image(*sizes[image], bits, tuple(objects.get(image, ()))) for image, bits in categories.items())
    return Instances(tuple(images), names)


def _without_segmentation(entry: dict[str, Any]) -> dict[str, Any]:
    # Training annotations hold 36 million numbers that would need gigabytes of memory.
    entry.pop("segmentation", None)
    return entry


def _category_names(entries: list[Any], faults: Faults) -> tuple[str, ...]:
    names = {}
    for number, entry in enumerate(entries):
        if faults.fields(entry, f"categories[{number}]", id=int, name=str):
            names[entry["id"]] = entry["name"]
    if missing := [str(number) for number in CATEGORY_IDS if number not in names]:
        faults.add("categories", f"lack COCO's numbers {', '.join(missing)}")
    if surplus := [str(number) for number in names if number not in CATEGORY_IDS]:
        faults.add("categories", f"hold numbers that are not COCO's: {', '.join(surplus)}")
    return tuple(names.get(number, "") for number in CATEGORY_IDS)


def _images(entries: list[Any], faults: Faults) -> dict[int, tuple[str, int, int]]:
    sizes: dict[int, tuple[str, int, int]] = {}
    for number, entry in enumerate(entries):
        place = f"images[{number}]"
        if not faults.fields(entry, place, id=int, file_name=str, height=int, width=int):
            continue
        name, height, width = entry["file_name"], entry["height"], entry["width"]
        if PurePosixPath(name).name != name or path_fault(name):
            faults.add(f"{place}.file_name", f"{name!r} is no plain file name")
        if entry["id"] in sizes:
            faults.add(f"{place}.id", f"{entry['id']} is there twice")
        if min(height, width) < 1 or height * width > LARGEST:
            faults.add(place, f"a size of {width} x {height}")
        sizes[entry["id"]] = (name, height, width)
    return sizes


def _is_sound(value: Any, image: tuple[str, int, int], place: str, faults: Faults) -> bool:
    before = faults.count
    if isinstance(value, list):
        for number, polygon in enumerate(value):
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                faults.add(f"{place}[{number}]", "must be a list of three points or more, x and y of each")
            elif not all(type(number) in (int, float) for number in polygon):
                faults.add(f"{place}[{number}]", "holds what is no number")
            elif not all(abs(number) <= FARTHEST for number in polygon):
                faults.add(f"{place}[{number}]", f"has a point more than {FARTHEST} pixels away")
    elif faults.fields(value, place, size=list, counts=(list, str)):
        height, width = image[1:]
        if value["size"] != [height, width]:
            faults.add(f"{place}.size", f"{value['size']}, its image {[height, width]} (height, width)")
        elif not _cover(value["counts"], height * width):
            faults.add(f"{place}.counts", f"needs whole numbers whose sum is {height * width}")
    return faults.count == before


def _cover(counts: list[Any] | str, pixels: int) -> bool:
    """Whether run lengths are those of so many pixels; the codec trusts them and writes beyond its memory."""
    lengths = counts if isinstance(counts, list) else _unpacked(counts)
    return all(type(length) is int and 0 <= length <= pixels for length in lengths) and sum(lengths) == pixels


def _unpacked(text: str) -> list[int]:
    """Run lengths as COCO writes them in a text: five bits in a letter, differences from the third on.

    Empty where the text is none of that kind.
    """
    lengths: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) and 1 << shift
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return [] if shift else lengths
