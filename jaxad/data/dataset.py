"""`load`: a data set by name, checked, with its hold-out."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxad.config import DataConfig
from jaxad.data.check import examine
from jaxad.data.demo import VERSION, make_demo, read_notes
from jaxad.data.folder import FolderSource
from jaxad.data.holdout import split_holdout
from jaxad.data.layout import scan
from jaxad.errors import DataError, Problem
from jaxad.types import Record

LICENCE_LENGTH = 4000


@dataclass(frozen=True)
class DataSet:
    """A data set in three parts.

    Attributes:
        name: what it was loaded as, e.g. "demo" or "folder:parts".
        train: normal images to train on.
        holdout: normal images kept out of training for the threshold (DESIGN 4.10).
        test: images to evaluate on, normal and anomalous.
        categories: all categories, sorted.
        licence: text of the licence files found, "" where there is none.
        problems: what was wrong: notes, and under on_bad="skip" also what was left out.
        notes: what the data set says of itself, e.g. which defects of the demo are drawn.
    """

    name: str
    train: FolderSource
    holdout: FolderSource
    test: FolderSource
    categories: tuple[str, ...]
    licence: str = ""
    problems: tuple[Problem, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

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

    def summary(self) -> str:
        """Table of the counts, one line for each category and one for all."""
        heads = ("category", "train", "hold-out", "test normal", "test anomalous", "masks")
        rows = [(name, *numbers.values()) for name, numbers in self.counts.items()]
        rows.append(("all", *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True))))
        first = max(len(str(row[0])) for row in (heads, *rows))
        lines = []
        for row in (heads, *rows):
            numbers = (f"{value!s:>{len(head)}}" for head, value in zip(heads[1:], row[1:], strict=True))
            lines.append("  ".join((f"{row[0]:<{first}}", *numbers)))
        return "\n".join(lines)


def load(
    name: str, *, config: DataConfig | None = None, cache: Path | str | None = None, verify: bool = True
) -> DataSet:
    """Loads a data set and says everything that is wrong with it at once.

    Args:
        name: "folder:PATH" of a folder in MVTec layout (jaxad.data.layout), or "demo".
        config: categories, hold-out, what to do about bad images, threads; `config.source` is not read.
        cache: folder in which the demo data set is written, once; `jaxad/demo-VERSION` in the user's cache by default.
        verify: decode everything first (jaxad.data.check); False only lists the files.

    Raises:
        DataError: an unknown name, a folder without categories or images, or, unless config.on_bad is "skip", any fatal
            problem; all of them are in the one message.
    """
    config = config or DataConfig()
    config.check()
    if name == "demo":
        root = make_demo(Path(cache) if cache else _cache_folder() / f"demo-{VERSION}")
    elif name.startswith("folder:"):
        root = Path(name.removeprefix("folder:")).expanduser()
    else:
        hint = f"; for that folder write folder:{name}" if Path(name).is_dir() else ""
        raise DataError(f"no data set {name!r}: give folder:PATH or demo{hint}")
    return _load_folder(name, root, config, verify=verify)


def _load_folder(name: str, root: Path, config: DataConfig, *, verify: bool) -> DataSet:
    listing = scan(root, config.categories)
    normal = (*listing.train, *listing.validation)
    findings = examine(normal, listing.test, workers=config.workers) if verify else []
    problems = [*listing.problems, *(finding.problem for finding in findings)]
    fatal = [problem for problem in problems if problem.fatal]
    if fatal and config.on_bad == "stop":
        raise DataError(
            f"{name} cannot be used as it is, {len(fatal)} problems; mend them or leave them out with --on-bad skip:",
            fatal,
        )
    dropped = {finding.record for finding in findings if finding.problem.fatal}
    usable = [record for record in normal if record not in dropped]
    test = FolderSource(f"{name}/test", tuple(record for record in listing.test if record not in dropped))
    if not usable and not test.records:
        raise DataError(f"{name}: no usable image", fatal)
    held = _held_out(usable, set(listing.validation), config)
    train = FolderSource(f"{name}/train", tuple(record for record in usable if record not in held))
    holdout = FolderSource(f"{name}/holdout", tuple(record for record in usable if record in held))
    categories = tuple(sorted({*train.categories, *test.categories}))
    if config.holdout > 0:
        problems += _small_holdouts(root, train, holdout)
    folders = [root, *(root / category for category in categories)]
    return DataSet(name, train, holdout, test, categories, _licence(folders), tuple(problems), read_notes(root))


def _held_out(usable: list[Record], validation: set[Record], config: DataConfig) -> set[Record]:
    """Which normal images are held out: a category's own validation images, else a share of its training images."""
    if config.holdout == 0:
        return set()
    own = validation.intersection(usable)
    provided = {record.category for record in own}
    others = [record for record in usable if record.category not in provided]
    return own | {others[index] for index in split_holdout(others, config.holdout, workers=config.workers)[1]}


def _small_holdouts(root: Path, train: FolderSource, holdout: FolderSource, enough: int = 5) -> list[Problem]:
    held = Counter(record.category for record in holdout.records)
    return [
        Problem(
            "small hold-out",
            str(root),
            f"{category} holds out {held[category]} images, not {enough}: never more than half of them are held out",
            fatal=False,
        )
        for category in train.categories
        if held[category] < enough
    ]


def _licence(folders: list[Path]) -> str:
    texts = []
    for folder in folders:
        for file in sorted(folder.glob("*")) if folder.is_dir() else ():
            if (
                file.stem.lower() in ("licence", "license")
                and file.suffix.lower() in ("", ".txt", ".md")
                and file.is_file()
            ):
                texts.append(file.read_text("utf-8", errors="replace").strip())
    text = "\n\n".join(dict.fromkeys(texts))
    return text if len(text) <= LICENCE_LENGTH else text[:LICENCE_LENGTH] + " ..."


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxad"
