"""Everything that is wrong with a data set's files, found before anything is stored."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxad.data.decode import decode_image
from jaxad.data.doctor import examine_mask
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems, problems_of
from jaxad.io.threads import map_threads
from tfds_builders.encode import mask_bytes
from tfds_builders.listing import SPLITS, Benchmark, Counts, Sample


@dataclass(frozen=True)
class Category:
    """One category of a source.

    Attributes:
        name: official name.
        samples: its images.
        problems: what is wrong with names and numbers.
        fingerprint: SHA-256 of identities, labels and file sizes; tells whether it was prepared from the same files.
        size: bytes of images and masks.
    """

    name: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    fingerprint: str = ""
    size: int = 0

    @property
    def counts(self) -> Counts:
        """Images by split and label."""
        return Counter((sample.split, sample.label) for sample in self.samples)


def list_category(data_set: Benchmark, root: Path, name: str, *, partial: bool = False, **options: Any) -> Category:
    """Lists a category and looks for its files; decodes nothing.

    Args:
        data_set, root, name: which.
        partial: whether fewer images than officially there are, or none, are in order.
        options: of the data set, and its `survey` where it has one.
    """
    place = str(root / name)
    try:
        samples = tuple(data_set.list_samples(root, name, **options))
    except DataError as error:
        return Category(name, (), problems_of(error, "unreadable list", place))
    problems = Problems()
    if not samples and not partial:
        detail = "no images; unpack the source again, choose other categories, or allow it with partial = True"
        problems.add("missing category", place, detail)
    twice = [identity for identity, number in Counter(sample.image_id for sample in samples).items() if number > 1]
    problems += [Problem("image named twice", f"{root}/{identity}", "mend the list") for identity in twice]
    digest, total = hashlib.sha256(), 0
    for sample in samples:
        sizes = []
        for kind, file in (("image", sample.image), ("mask", sample.mask)):
            if isinstance(file, Path):
                if file.is_file():
                    sizes.append(file.stat().st_size)
                else:
                    detail = (
                        f"the layout has it{f', for {sample.image}' if kind == 'mask' else ''}; unpack the source again"
                    )
                    problems.add(f"missing {kind}", file, detail)
        if sample.label == 1 and sample.mask is None and data_set.masks_required:
            problems.add("missing mask", sample.image, "anomalous, but the list gives it no mask")
        digest.update(f"{sample.image_id}\0{sample.split}\0{sample.label}\0{sample.defect}\0{sizes}\n".encode())
        total += sum(sizes)
    category = Category(name, samples, fingerprint=digest.hexdigest(), size=total)
    if samples and not partial:
        problems += count_problems(place, category.counts, data_set.counts(name, **options))
    return replace(category, problems=tuple(problems))


def count_problems(place: str, found: Counts, official: Counts) -> list[Problem]:
    """What differs from the official counts, where these are known."""
    wrong = [
        f"{_part(split, label)}: {found.get((split, label), 0)} images, official {number}"
        for (split, label), number in official.items()
        if found.get((split, label), 0) != number
    ]
    detail = f"{'; '.join(wrong)}; unpack the source again, or allow it with partial = True"
    return [Problem("wrong count", place, detail)] if wrong else []


def described(counts: Counts) -> str:
    """Counts in words: "train normal 209, test normal 20, test anomalous 63"."""
    order = sorted(counts, key=lambda key: (SPLITS.index(key[0]), key[1]))
    return ", ".join(f"{_part(*key)} {counts[key]}" for key in order)


def examine(
    samples: Sequence[Sample], *, workers: int | None = None, progress: Callable[[int], None] = lambda number: None
) -> list[Problem]:
    """Decodes all images and masks; memory stays that of a few.

    Returns:
        Problems of single images and masks as `jaxad.data.doctor` lists them, in the order of the samples.
    """

    def look(sample: Sample) -> list[Problem]:
        problems = _examine(sample)
        progress(1)
        return problems

    return [problem for problems in map_threads(look, samples, workers) for problem in problems]


def _examine(sample: Sample) -> list[Problem]:
    image = str(sample.image)
    try:
        size = decode_image(sample.image).shape[:2]
    except DataError as error:
        return list(error.problems)
    name = str(sample.mask) if isinstance(sample.mask, Path) else f"mask of {image}"
    found = examine_mask(lambda: mask_bytes(sample), name, image=image, size=size, label=sample.label).problems
    # A benchmark is stored as it was published.
    return [replace(problem, fatal=False) if problem.kind == "empty mask" else problem for problem in found]


def _part(split: str, label: int) -> str:
    return f"{split} {('unlabeled', 'normal', 'anomalous')[label + 1]}"
