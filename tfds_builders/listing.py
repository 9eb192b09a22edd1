"""What every data set says of itself, free of TFDS: its images one by one, its counts, its license.

A data set is a `Benchmark`. Those that come with jaxad are packages `tfds_builders/<name>/` that register theirs
(jaxad.data.registry) when they are imported; another package names its own as an entry point of the group
`jaxad.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from jaxad.data.registry import datasets
from jaxad.errors import ConfigError, DataError
from jaxad.io.text import slug
from jaxad.registry import unknown

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Counts = Mapping[tuple[str, int], int]
"""Number of images by split and label, e.g. {("train", 0): 209, ("test", 0): 20, ("test", 1): 63}."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set, as its official layout tells it.

    Attributes:
        split: the split it belongs to.
        image: its file.
        category: its category, by the official name.
        label: 0 normal, 1 anomalous, -1 unknown.
        defect: type of defect, "good" for normal images, "" where unknown.
        image_id: identity: path relative to the root, forward slashes.
        mask: defect mask: a file, copied as it is; encoded PNG bytes; a function without arguments that makes such
            bytes when the image is stored (picklable, e.g. a functools.partial); None where there is none. A file that
            the layout promises is given whether or not it exists: `prepare` says which are missing.
        object_id: what the views of one object have in common, "" for data sets of single views.
        view: number of the view from 1, 0 for data sets of single views.
        caption: text, "" where there is none.
    """

    split: Split
    image: Path
    category: str
    label: int
    defect: str
    image_id: str
    mask: Path | bytes | Callable[[], bytes] | None = None
    object_id: str = ""
    view: int = 0
    caption: str = ""


@dataclass(frozen=True)
class Option:
    """A choice that a data set offers: `jaxad prepare coco_ad --options split=split_2`.

    Attributes:
        name: its name, a Python identifier.
        choices: permitted values, none of them a plain number or with a hyphen (they become part of config names).
        help: one line about it.
    The first choice is the default.
    """

    name: str
    choices: tuple[str, ...]
    help: str


@dataclass(frozen=True)
class Benchmark:
    """A data set: how to obtain, recognize and list it.

    Attributes:
        name: name under which it is registered, and of the TFDS data set, e.g. "mvtec_ad".
        title: its name in prose.
        homepage: its official page.
        license: license in one line.
        how_to_obtain: what to get, from whom, and what the source is to be; nothing is downloaded.
        is_root: whether a folder is the root of the official layout; also asked of the folders in the one given.
        list_samples: (root, category, **options) -> samples. Reads names, lists and annotations, never image data;
            raises DataError with all problems at once for lists that are damaged.
        survey: (root) -> what is read once for all categories and handed to `list_samples` as `survey`, where it would
            else be read again for each; None where nothing is.
        categories: official names of all categories, in official order; empty where the source decides.
        find_categories: (root, **options) -> names, for data sets whose source decides; otherwise None.
        counts: (category, **options) -> official counts of a category, empty where they are not known.
        totals: (**options) -> official counts over all categories, empty where they are not known.
        masks_required: whether every anomalous image has a mask.
        options: choices that change what is listed; passed to the functions above by name.
        category_of: (archive) -> the category that an official archive holds alone, by its path; None for others.
        checksums: SHA-256 by file name of official archives.
        subsets: by name in lower case, how many categories a subset holds in the order of their official names, and the
            last one.
    """

    name: str
    title: str
    homepage: str
    license: str
    how_to_obtain: str
    is_root: Callable[[Path], bool]
    list_samples: Callable[..., Iterable[Sample]]
    survey: Callable[[Path], Any] | None = None
    categories: tuple[str, ...] = ()
    find_categories: Callable[..., tuple[str, ...]] | None = None
    counts: Callable[..., Counts] = field(default=lambda category, **options: {})
    totals: Callable[..., Counts] = field(default=lambda **options: {})
    masks_required: bool = True
    options: tuple[Option, ...] = ()
    category_of: Callable[[Path], str | None] = field(default=lambda archive: None)
    checksums: Mapping[str, str] = field(default_factory=dict)
    subsets: Mapping[str, tuple[int, str]] = field(default_factory=dict)

    def categories_of(self, root: Path, **options: str) -> tuple[str, ...]:
        """All categories that the data set has, present or not; those of `root` where the source decides."""
        return self.categories if self.find_categories is None else self.find_categories(root, **options)

    def choose(self, given: Mapping[str, Any]) -> dict[str, str]:
        """The value of every option, defaults included. Raises ConfigError naming all that do not fit."""
        known = {option.name: option for option in self.options}
        problems = [
            f"no option {name!r}; there are: {', '.join(known) or 'none'}" for name in given if name not in known
        ]
        for name, option in known.items():
            if (value := str(given.get(name, option.choices[0]))) not in option.choices:
                problems.append(f"option {name}={value}: must be one of {', '.join(option.choices)}")
        if problems:
            raise ConfigError(f"{self.name}: " + "; ".join(problems))
        return {name: str(given.get(name, option.choices[0])) for name, option in known.items()}


def config_name(benchmark: Benchmark, category: str, size: int | None = None, **options: str) -> str:
    """Name of a category's TFDS config: slug, options other than the defaults, prepared size: "bottle-512"."""
    chosen = benchmark.choose(options)
    parts = [slug(category)]
    parts += [chosen[option.name] for option in benchmark.options if chosen[option.name] != option.choices[0]]
    return "-".join(parts + ([] if size is None else [str(size)]))


def names() -> tuple[str, ...]:
    """Names of all data sets."""
    return datasets.names()


def benchmark(name: str) -> Benchmark:
    """The data set of that name. Raises DataError for a name that is none."""
    if name not in names():
        raise DataError(unknown("data set", name, names()))
    return cast(Benchmark, datasets.get(name))
