"""A CSV file that lists images: one row for each, its columns known by their heads, in any order."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from jaxad.data.layout.listing import Listing
from jaxad.data.layout.table import Row, listing_of
from jaxad.data.layout.tree import is_image
from jaxad.data.layout.words import FOUND, Names, word
from jaxad.errors import DataError, Problem
from jaxad.io.json_files import LIST
from jaxad.io.places import expanded
from jaxad.io.untrusted import bytes_of, reading

HEADS = {
    "file": "file path image filename filepath file_path file_name image_path image_file image_name img img_path",
    "category": "category object product part category_name object_name product_name part_name",
    "split": "split set subset partition fold",
    "label": "label target is_anomalous is_anomaly anomalous label_index",
    "defect": "defect defect_type defect_name anomaly_type kind",
    "mask": "mask mask_path mask_file ground_truth gt mask_name",
}
"""The heads of each column; compared as `words.word` does, in any case, with blanks for underscores."""
_ROLES = {head: role for role, heads in HEADS.items() for head in heads.split()}


def read_csv(path: str | Path, categories: tuple[str, ...] | None = None, names: Names = FOUND) -> Listing:
    """Lists the images of a CSV file; paths in it begin in its folder.

    Columns are separated by commas, semicolons or tabs, and have the heads of `HEADS`; those of other heads are named
    in a note. Only the column of the files must be there.

    Args:
        path: the file, UTF-8.
        categories: names of the categories to list; None for all.
        names: words for normal images and kinds of defects that a user has given.

    Raises:
        DataError: no such file, none that can be read, no column of files, or two of one kind.
    """
    path = expanded(path)

    def damaged(detail: str) -> DataError:
        return DataError(f"{path}: cannot be read as CSV ({detail}); give a CSV file in UTF-8 with a head line")

    with reading(damaged):
        text = bytes_of(path, LIST.bytes, damaged).decode("utf-8-sig")
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        table = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        heads = next(table, [])
        rows = [(table.line_num, row) for row in table if any(cell.strip() for cell in row)]
    roles, notes = _columns(path, heads)
    wrong = [
        Problem("wrong row", f"{path}, line {line}", f"has {len(row)} cells, the head line {len(heads)}")
        for line, row in rows
        if len(row) != len(heads)
    ]
    found = [
        Row(f"{path}, line {line}", **{role: row[column].strip() for role, column in roles.items()})
        for line, row in rows
        if len(row) == len(heads)
    ]
    if rows and not found:
        raise DataError(f"{path}: no row has the cells of the head line:", wrong)
    return listing_of(
        path.parent,
        path.stem,
        found,
        labeled="label" in roles or "defect" in roles,
        categories=categories,
        names=names,
        problems=[*notes, *wrong],
    )


def _columns(path: Path, heads: list[str]) -> tuple[dict[str, int], list[Problem]]:
    """The number of each column by what it holds, and notes on the others."""
    roles: dict[str, int] = {}
    unknown, twice = [], []
    for column, head in enumerate(heads):
        role = _ROLES.get(word(head.strip()))
        if role is None:
            unknown.append(head.strip() or f"(column {column + 1})")
        elif role in roles:
            twice.append(f"{heads[roles[role]].strip()} and {head.strip()} both give the {role}; rename one")
        else:
            roles[role] = column
    if any(is_image(Path(head.strip())) for head in heads):
        raise DataError(f"{path}: the first line is no head line; begin with one such as file,category,split,label")
    if "file" not in roles:
        known = HEADS["file"].replace(" ", ", ")
        raise DataError(f"{path}: no column of files among {', '.join(unknown) or 'none'}; call one of them {known}")
    if twice:
        raise DataError(f"{path}: {'; '.join(twice)}")
    if not unknown:
        return roles, []
    known = ", ".join(role for role in HEADS if role not in roles)
    detail = f"columns that are not read: {', '.join(unknown)}; what is not given is {known or 'nothing'}"
    # Without labels all images are taken for normal ones, which an unknown column may well deny.
    unclear = "label" not in roles and "defect" not in roles
    if unclear:
        detail += "; rename that of the labels to label, or remove them if all images are normal"
    return roles, [Problem("ignored column", str(path), detail, fatal=unclear)]
