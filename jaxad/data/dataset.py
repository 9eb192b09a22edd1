"""`load`: a data set by name, checked, with its hold-out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jaxad.config import DataConfig
from jaxad.data.demo.dataset import VERSION, make_demo, read_notes
from jaxad.data.doctor import Examination, examine
from jaxad.data.folder import FolderSource
from jaxad.data.holdout import digests, split_holdout
from jaxad.data.layout import Listing, Names, read_csv, scan, word
from jaxad.data.prepared import open_prepared, prepared_names
from jaxad.data.region import Region, read_region
from jaxad.data.registry import datasets
from jaxad.data.source import ImageSource
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.io.notebook import table
from jaxad.io.places import cache_folder, expanded
from jaxad.io.text import apart, file_name, visible
from jaxad.types import Record

LICENSE_LENGTH = 4000

Draw = Callable[[ImageSource], ImageSource]
"""Takes some of the images of a source, as `ImageSource.per_class` does."""


@dataclass(frozen=True, repr=False)
class DataSet:
    """A data set in three parts.

    Attributes:
        name: what it was loaded as, e.g. "demo", "folder:parts" or "mvtec_ad/bottle".
        train: normal images to train on.
        holdout: normal images kept out of training, on which the threshold is chosen.
        test: images to evaluate on, normal and anomalous.
        categories: all categories, sorted.
        license: text of the license files found, "" where there is none.
        problems: what was wrong: notes, and under on_bad="skip" also what was left out.
        notes: what the data set says of itself, e.g. which defects of the demo are drawn.
        images: numbers of images by category, size and kind (jaxad.data.doctor), where all were decoded on loading.
        regions: by category, the part of its images that is judged; of categories left out all of it.
    """

    name: str
    train: ImageSource
    holdout: ImageSource
    test: ImageSource
    categories: tuple[str, ...]
    license: str = ""
    problems: tuple[Problem, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)
    images: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    regions: Mapping[str, Region] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = {"train": self.train, "hold-out": self.holdout, "test": self.test}
        images = ", ".join(f"{len(source)} {part}" for part, source in parts.items())
        return f"<DataSet {visible(self.name)}: {images} images of {len(self.categories)} categories>"

    def _repr_html_(self) -> str:
        """For notebooks: the counts of each category."""
        heads = ("", "train", "hold-out", "test normal", "test anomalous", "masks")
        rows = [(name, *numbers.values()) for name, numbers in self.counts.items()]
        return table(heads, rows, repr(self)[1:-1])

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Numbers of images by category: train, holdout, test_normal, test_anomalous, masks."""
        parts: list[str] = ["train", "holdout", "test_normal", "test_anomalous", "masks"]
        counts = {name: dict.fromkeys(parts, 0) for name in self.categories}
        for part, source in (("train", self.train), ("holdout", self.holdout)):
            for category, number in Counter(record.category for record in source.records).items():
                counts[category][part] = number
        for record in self.test.records:
            if record.label is not None:
                counts[record.category]["test_anomalous" if record.label else "test_normal"] += 1
            counts[record.category]["masks"] += bool(record.label) and record.mask is not None
        return counts

    @property
    def defects(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Numbers of test images and of masks among them, by category and kind of defect; "" has no label."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for record in self.test.records:
            if record.label != 0:
                own = found.setdefault(record.category, {})
                images, masks = own.get(record.defect, (0, 0))
                own[record.defect] = images + 1, masks + (record.mask is not None)
        return found

    def summary(self) -> str:
        """Table of the counts, one line for each category and one for all, and what kinds of defects there are."""
        heads = ("category", "train", "hold-out", "test normal", "test anomalous", "masks")
        rows = [(name, *numbers.values()) for name, numbers in self.counts.items()]
        totals = (sum(column) for column in zip(*(row[1:] for row in rows), strict=True))
        rows.append((apart("all", self.categories), *totals))
        first = max(len(str(row[0])) for row in (heads, *rows))
        lines = []
        for row in (heads, *rows):
            numbers = (f"{value!s:>{len(head)}}" for head, value in zip(heads[1:], row[1:], strict=True))
            lines.append("  ".join((f"{row[0]:<{first}}", *numbers)))
        if self.regions:
            lines.append(f"judged only in their region (roi): {', '.join(sorted(self.regions))}")
        for category, kinds in sorted(self.defects.items()):
            said = (
                f"{kind or '(no label)'} {number} ({masks or 'no'} masks)" for kind, (number, masks) in kinds.items()
            )
            lines.append(f"{category}: {', '.join(said)}")
        return "\n".join(lines)


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    config: DataConfig | None = None,
    cache: Path | str | None = None,
    verify: bool | None = None,
    draw: Draw | None = None,
) -> DataSet:
    """Loads a data set and says everything that is wrong with it at once.

    Args:
        name: "folder:PATH" of a folder in MVTec layout or the like (jaxad.data.layout), "csv:FILE" of a table of
            images (jaxad.data.layout.csv_table), "demo", or a prepared data set (jaxad.data.prepared): "mvtec_ad",
            "mvtec_ad/bottle", "real_iad_variety/s1".
        data_dir: folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets by default.
        config: categories, hold-out, what to do about bad images, threads, names of folders.
        cache: folder in which the demo data set is written, once; `jaxad/demo-VERSION` in the user's cache by default.
        verify: decode everything first (jaxad.data.doctor), and look for what would be wrong with a hold-out though
            there is none; False only lists the images. None decodes folders, which may change at any time, and where
            bad images are to be skipped, but trusts a prepared data set. The depth of a folder's 16-bit images is
            measured then, that of prepared ones always.
        draw: takes the training images that a detector remembers, before any is held out; of the others it learns
            nothing, so that the hold-out may be all of them. None trains on all that are not held out.

    Raises:
        DataError: an unknown name, a folder without categories or images, or, unless config.on_bad is "skip", any fatal
            problem; all of them are in the one message.
    """
    config = config or DataConfig()
    config.check()
    kind, _, path = name.partition(":")
    if config.names and (kind not in ("folder", "csv") or not path):
        fields = ", ".join(f"{field} = {' '.join(names)}" for field, names in config.names.items())
        raise ConfigError(f"{fields}: for folders and tables (folder:PATH, csv:FILE), {name} needs no names")
    if name == "demo":
        root = make_demo(Path(cache) if cache else cache_folder() / f"demo-{VERSION}")
        return _load_files(name, scan(root, config.categories), config, verify, draw)
    if kind == "folder":
        return _load_files(name, scan(expanded(path), config.categories, _names(config)), config, verify, draw)
    if kind == "csv":
        return _load_files(name, read_csv(path, config.categories, _names(config)), config, verify, draw)
    if _is_prepared_name(name, data_dir):
        return _load_prepared(name, data_dir, config, verify, draw)
    there = ", ".join(prepared_names(data_dir))
    known = f"folder:PATH, csv:FILE or demo{f', or of the prepared ones {there}' if there else ''}"
    hint = f"; for that folder write folder:{name}" if Path(name).is_dir() else ""
    hint = f"; for that table write csv:{name}" if Path(name).is_file() else hint
    raise DataError(f"no data set {name!r}: give {known}{hint}")


def _is_prepared_name(name: str, data_dir: Path | str | None) -> bool:
    first = name.partition("/")[0]
    return first in datasets.names() or first in prepared_names(data_dir)


def _names(config: DataConfig) -> Names:
    """The names that the config gives, as words."""
    given = (config.good_names, config.test_good_names, config.defect_names, config.mask_names)
    return Names(*(frozenset(map(word, names)) for names in given))


def _load_files(name: str, listing: Listing, config: DataConfig, verify: bool | None, draw: Draw | None) -> DataSet:
    root = listing.root
    regions = {category: read_region(file) for category, file in listing.regions.items()}
    normal = FolderSource(f"{name}/train", (*listing.train, *listing.validation))
    test = FolderSource(f"{name}/test", listing.test)
    data = _assemble(name, normal, frozenset(listing.validation), test, listing.problems, config, verify, root, draw)
    folders = [root, *(root / file_name(category) for category in data.categories)]
    return replace(data, license=_license(folders), notes=read_notes(root), regions=regions)


def _load_prepared(
    name: str, data_dir: Path | str | None, config: DataConfig, verify: bool | None, draw: Draw | None
) -> DataSet:
    found = open_prepared(name, data_dir, categories=config.categories, workers=config.workers)
    if config.on_bad != "skip":
        verify = bool(verify)
    data = _assemble(name, found.normal, found.validation, found.test, found.problems, config, verify, Path(name), draw)
    return replace(data, license=_short(found.license))


def _assemble(
    name: str,
    normal: ImageSource,
    validation: frozenset[Record],
    test: ImageSource,
    known: tuple[Problem, ...],
    config: DataConfig,
    verify: bool | None,
    root: Path,
    draw: Draw | None,
) -> DataSet:
    """The data set of these images, the bad ones refused or left out and the hold-out taken from the normal ones."""
    found = Examination()
    if verify is not False:
        # Without a hold-out, validation images are training images like others.
        apart = validation if verify or config.holdout > 0 else frozenset[Record]()
        found = examine([normal], test, validation=apart, workers=config.workers)
        normal, test = (source.at_depths(found.depths) for source in (normal, test))
    problems = [*known, *(finding.problem for finding in found.findings), *found.notes]
    fatal = [problem for problem in problems if problem.fatal]
    if fatal and config.on_bad == "stop":
        raise DataError(
            f"{name} cannot be used as it is, {len(fatal)} problems; mend them or leave them out with on_bad = skip:",
            fatal,
        )
    dropped = {finding.record for finding in found.findings if finding.problem.fatal}
    normal, test = (
        source.select(i for i, record in enumerate(source.records) if record not in dropped)
        for source in (normal, test)
    )
    if not normal.records and not test.records:
        raise DataError(f"{name}: no usable image", fatal)
    drawn = None if draw is None else draw(_learnable(normal, validation, config))
    held = _held_out(normal, validation, config, drawn)
    train = normal.select(i for i in range(len(normal)) if i not in held) if drawn is None else drawn
    holdout = normal.select(sorted(held), f"{name}/holdout")
    categories = tuple(sorted({*normal.categories, *test.categories}))
    if config.holdout > 0:
        problems += _small_holdouts(root, normal, holdout, validation, drawn is not None)
    return DataSet(name, train, holdout, test, categories, problems=tuple(problems), images=found.images)


def _learnable(normal: ImageSource, validation: frozenset[Record], config: DataConfig) -> ImageSource:
    """The normal images that may be learned from: without a hold-out, validation images are like others."""
    apart = validation if config.holdout > 0 else frozenset[Record]()
    return normal.select(index for index, record in enumerate(normal.records) if record not in apart)


def _held_out(
    normal: ImageSource, validation: frozenset[Record], config: DataConfig, drawn: ImageSource | None
) -> set[int]:
    """Which normal images are held out: a category's own validation images, else a share of its training images, and
    of those that were not `drawn` where only these are learned from."""
    if config.holdout == 0:
        return set()
    own = {index for index, record in enumerate(normal.records) if record in validation}
    provided = {normal.records[index].category for index in own}
    others = [index for index, record in enumerate(normal.records) if record.category not in provided]
    if drawn is None:
        held = split_holdout(normal.select(others), config.holdout, workers=config.workers)[1]
    else:
        # Copies of what is learned would pass for normal all too easily.
        learned = set(digests(drawn, workers=config.workers))
        known = digests(normal.select(others), workers=config.workers) if learned else []
        others = [index for index, one in zip(others, known, strict=True) if one not in learned] if learned else others
        held = split_holdout(normal.select(others), config.holdout, most=1.0, workers=config.workers)[1]
    return own | {others[index] for index in held}


def _small_holdouts(
    root: Path,
    normal: ImageSource,
    holdout: ImageSource,
    validation: frozenset[Record],
    drawn: bool,
    enough: int = 5,
) -> list[Problem]:
    held = Counter(record.category for record in holdout.records)
    if drawn and normal.categories and not held:
        detail = "every normal image is remembered, so that none is left to choose a threshold on; add more for one"
        return [Problem("no hold-out", str(root), detail, fatal=False)]
    provided = {record.category for record in holdout.records if record in validation}
    least = "no more are left" if drawn else "never more than half of them are held out"
    problems = []
    for category in normal.categories:
        if held[category] < enough:
            why = "its validation images" if category in provided else least
            detail = f"{category} holds out {held[category]} images, not {enough}: {why}"
            problems.append(Problem("small hold-out", str(root), detail, fatal=False))
    return problems


def _license(folders: list[Path]) -> str:
    texts = []
    for folder in folders:
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            if (
                file.stem.lower() in ("licence", "license")
                and file.suffix.lower() in ("", ".txt", ".md")
                and file.is_file()
            ):
                texts.append(_beginning(file))
    return _short("\n\n".join(dict.fromkeys(texts)))


def _beginning(file: Path) -> str:
    """What is shown of a text, and little more; "" of what cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(4 * LICENSE_LENGTH).strip()
    except OSError:
        return ""


def _short(text: str) -> str:
    return text if len(text) <= LICENSE_LENGTH else text[:LICENSE_LENGTH] + " ..."
