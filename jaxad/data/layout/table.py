"""Images listed one by one, in a CSV file or an export: what each row says, and which of them contradict others."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxad.data.layout.listing import Listing, chosen_categories, ordered
from jaxad.data.layout.words import DEFECTIVE, FOUND, NORMAL, SPLITS, Names, word
from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems
from jaxad.io.text import name_text
from jaxad.types import Record

ZERO, ONE = frozenset(("0", "0.0", "false", "negative")), frozenset(("1", "1.0", "true", "positive"))
"""Labels of normal and of anomalous images that are not words for them."""


class Row(NamedTuple):
    """What a list says of one image, as it is written there.

    Attributes:
        place: of the row, for messages, e.g. "parts.csv, line 7".
        file: path of the image, from the folder of the list on, or absolute.
        category: "" for that of the whole list.
        split: a word for train, validation or test; "" where it follows from the label.
        label: a word for normal or anomalous, 0 or 1, or the name of a defect; "" where `defect` says it.
        defect: the name of the defect; "" for none.
        mask: path of the defect mask; "" for none.
    """

    place: str
    file: str
    category: str = ""
    split: str = ""
    label: str = ""
    defect: str = ""
    mask: str = ""


def listing_of(
    root: Path,
    name: str,
    rows: Sequence[Row],
    *,
    labeled: bool = True,
    categories: tuple[str, ...] | None = None,
    names: Names = FOUND,
    problems: Sequence[Problem] = (),
) -> Listing:
    """The images that rows list.

    Args:
        root: the folder that paths begin from.
        name: of the list, and of the category of rows that name none.
        rows: of the list.
        labeled: whether it has labels; without, all images are normal ones to train on.
        categories: those to list; None for all.
        names: words for normal images and kinds of defects that a user has given.
        problems: what is known already.

    Raises:
        DataError: no rows, or none of one of `categories`.
    """
    if not rows:
        raise DataError(f"{root / name}: lists no image")
    found, reading = Problems(), _Rows(root, name, labeled, names)
    found += problems
    parts: dict[str, list[Record]] = {"train": [], "validation": [], "test": []}
    seen: dict[Path, tuple[Row, str, Record]] = {}
    for row in rows:
        split, record, faults = reading.read(row)
        for kind, detail in faults:
            found.add(kind, row.place, detail)
        if faults or record is None:
            continue
        if (before := seen.get(record.file)) is None:
            seen[record.file] = row, split, record
            parts[split].append(record)
        elif before[1:] == (split, record):
            found.add("repeated image", row.place, f"{row.file} is listed at {before[0].place} too", fatal=False)
        else:
            detail = f"{row.file} is listed otherwise at {before[0].place}; keep one of the two"
            found.add("contradictory labels", row.place, detail)
    if reading.labels and not reading.normal:
        shown = ", ".join(sorted(reading.labels)[:6])
        detail = f"no label is a word for normal images: {shown}; say which ones are with good_names = NAME"
        found.add("unclear label", root / name, detail)
    chosen = chosen_categories(root, categories, dict.fromkeys(r.category for part in parts.values() for r in part))
    train, validation, test = ([record for record in part if record.category in chosen] for part in parts.values())
    return Listing(root, ordered(train), ordered(validation), ordered(test), tuple(found))


class _Rows:
    """Reads rows, and remembers which labels there are."""

    def __init__(self, root: Path, name: str, labeled: bool, names: Names):
        self.root, self.name, self.labeled, self.names = root, name, labeled, names
        self.labels: set[str] = set()
        self.normal = False
        self._normal = (NORMAL | names.good | names.test_good) - names.defects

    def read(self, row: Row) -> tuple[str, Record | None, list[tuple[str, str]]]:
        """Split and record of a row, or the kinds and details of what is wrong with it."""
        faults: list[tuple[str, str]] = []
        file = self._file(row.file, "file", faults)
        mask = self._file(row.mask, "mask", faults) if row.mask else None
        label, defect = self._label(row, faults)
        split = SPLITS.get(word(row.split), "") if row.split else ""
        if label is None and split != "test" and (split or not (row.split or self.labeled)):
            # What a model is trained on is normal unless somebody says otherwise.
            label, defect = 0, "good"
        if not row.split:
            split = "train" if label == 0 else "test"
        if not split:
            detail = f"split {row.split!r} is none of train, validation and test; write one of them"
            faults.append(("unknown split", detail))
        elif split != "test" and label != 0:
            what = f"an image of {split} must be normal, this one is labeled {row.defect or row.label}"
            detail = f"{what}; correct its label, or move it to test"
            faults.append(("contradictory labels", detail))
        if faults or file is None:
            return split, None, faults
        inside = file.relative_to(self.root) if file.is_relative_to(self.root) else file
        category = name_text(row.category or self.name)
        identity = name_text(inside.as_posix())
        return split, Record(file, category, label, name_text(defect), mask, identity), faults

    def _label(self, row: Row, faults: list[tuple[str, str]]) -> tuple[int | None, str]:
        """0 and "good", 1 and a defect, or None and "" where nothing is said."""
        label, defect = word(row.label), word(row.defect)
        self.labels.update(text for text in (row.label, row.defect) if text)
        says = [self._says(text) for text in (label, defect) if text]
        if 0 in says and 1 in says:
            detail = f"label {row.label!r}, but defect {row.defect!r}; correct one of them"
            faults.append(("contradictory labels", detail))
        if label.lstrip("-").replace(".", "", 1).isdigit() and label not in ZERO | ONE:
            detail = f"label {row.label!r} is neither 0 (normal) nor 1 (anomalous); write the name of the defect"
            faults.append(("unclear label", detail))
        if not says:
            return None, ""
        if 1 not in says:
            self.normal = True
            return 0, "good"
        # A word such as "anomaly" says no more than that there is a defect, a name says which.
        named = row.defect or ("" if label in ONE else row.label)
        return 1, named or "defect"

    def _says(self, text: str) -> int:
        if text in self.names.defects | DEFECTIVE | ONE:
            return 1
        return 0 if text in self._normal | ZERO else 1

    def _file(self, text: str, what: str, faults: list[tuple[str, str]]) -> Path | None:
        """A file that a row names; a fault where it is not there, with the nearest that is."""
        path = self.root / text.replace("\\", "/")
        try:
            if text and path.is_file():
                return path
            there = [other.name for other in path.parent.iterdir()] if text and path.parent.is_dir() else []
        except (OSError, ValueError):
            there = []
        near = difflib.get_close_matches(path.name, there, 1) if len(there) <= 10_000 else []
        if not text:
            faults.append(("missing file", f"names no {what}"))
        else:
            hint = f"; did you mean {near[0]}?" if near else f"; paths begin in {self.root}"
            faults.append(("missing file", f"{what} {text} is not there{hint}"))
        return None
