"""COCO-AD: everyday scenes, 20 of COCO's 80 categories taken as anomalies by turns.

    train2017/*.jpg, val2017/*.jpg
    annotations/instances_train2017.json, annotations/instances_val2017.json

Split k (0 to 3) takes categories 20 k to 20 k + 19, in COCO's order, as anomalous. Images of train2017 without them are
for training, all of val2017 for testing; images without any annotation belong to neither. Masks are drawn on storing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from jaxad.io.problems import Problems
from tfds_builders.coco_ad.annotations import Image, Instances, read_instances
from tfds_builders.coco_ad.masks import draw_mask, run_length_codec
from tfds_builders.listing import Benchmark, Counts, Option, Sample, Split

CATEGORY = "coco"
SPLIT = Option("split", ("split_0", "split_1", "split_2", "split_3"), "which 20 of the 80 categories are anomalies")
PER_SPLIT = 20
FOLDERS = {"train": "train2017", "test": "val2017"}

COUNTS = {
    "split_0": {("train", 0): 30_438, ("test", 0): 1_291, ("test", 1): 3_661},
    "split_1": {("train", 0): 65_133, ("test", 0): 2_785, ("test", 1): 2_167},
    "split_2": {("train", 0): 79_083, ("test", 0): 3_328, ("test", 1): 1_624},
    "split_3": {("train", 0): 77_580, ("test", 0): 3_253, ("test", 1): 1_699},
}


def list_samples(root: Path, category: str, *, split: str) -> Iterator[Sample]:
    """The images of one split; an image is anomalous if any of its annotations, crowds included, is.

    Both annotation files are read before the first image is given, so that whatever is wrong in them is known by then.
    `defect` names the anomalous categories in the image, `image_id` is e.g. "val2017/000000000139.jpg".
    """
    first = PER_SPLIT * SPLIT.choices.index(split)
    anomalies = range(first, first + PER_SPLIT)
    bits = sum(1 << place for place in anomalies)
    run_length_codec()
    train, test = _annotations(root)
    for image in train.images:
        if not image.categories & bits:
            yield _normal(root, "train", image)
    for image in test.images:
        shown = [annotation for annotation in image.annotations if annotation.category in anomalies]
        if not shown:
            yield _normal(root, "test", image)
            continue
        names = [test.names[place] for place in sorted({annotation.category for annotation in shown})]
        segmentations = tuple(annotation.segmentation for annotation in shown)
        sample = _normal(root, "test", image)
        mask = partial(draw_mask, sample.image, image.height, image.width, segmentations)
        yield replace(sample, label=1, defect=", ".join(names), mask=mask)


def is_root(folder: Path) -> bool:
    """Whether a folder is COCO 2017 with its instance annotations."""
    files = [folder / "annotations" / f"instances_{part}2017.json" for part in ("train", "val")]
    return all(file.is_file() for file in files)


def counts(category: str, *, split: str) -> Counts:
    """Official numbers of images."""
    return COUNTS[split]


def _annotations(root: Path) -> tuple[Instances, Instances]:
    """Those of train2017, without polygons, and of val2017; what is wrong in either is listed at once."""
    found, problems = [], Problems()
    for part in ("train", "val"):
        file = root / "annotations" / f"instances_{part}2017.json"
        with problems.collected(file=file):
            found.append(read_instances(file, segmentations=part == "val"))
    problems.stop("COCO's annotations cannot be used; get these files again:")
    return found[0], found[1]


def _normal(root: Path, split: Split, image: Image) -> Sample:
    path = f"{FOLDERS[split]}/{image.file_name}"
    return Sample(split, root / path, CATEGORY, label=0, defect="good", image_id=path)


BENCHMARK = Benchmark(
    name="coco_ad",
    title="COCO-AD",
    homepage="https://github.com/zhangzjn/ADer",
    license="images: the terms of Flickr under which each was published; annotations: CC BY 4.0",
    how_to_obtain=(
        "Get train2017.zip, val2017.zip and annotations_trainval2017.zip of COCO 2017 (cocodataset.org) into one "
        "folder, as archives or extracted, and give that folder as source."
    ),
    is_root=is_root,
    list_samples=list_samples,
    categories=(CATEGORY,),
    counts=counts,
    options=(SPLIT,),
)
