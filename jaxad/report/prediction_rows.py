"""Predictions as lines: JSON for programs, and the same as a table for spreadsheets."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from typing import Any

from jaxad.errors import Problem
from jaxad.inference.answer import Answer
from jaxad.io.text import name_text

COLUMNS = ("file", "category", "verdict", "score", "threshold", "scaled", "box", "model", "problem")
"""Of the table."""
_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet would compute."""


def problem_row(problem: Problem) -> dict[str, str]:
    """A line of problems.jsonl."""
    return {"file": name_text(problem.file), "kind": problem.kind, "detail": problem.detail}


def table_line(values: Mapping[str, Any] | None = None) -> str:
    """A line of the table (RFC 4180) by column, or without values its head.

    A text that a spreadsheet would compute begins with an apostrophe: names of files come from anywhere.
    """
    buffer = io.StringIO()
    cells = COLUMNS if values is None else [text_cell(values.get(column)) for column in COLUMNS]
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def answer_cells(answer: Answer) -> dict[str, Any]:
    """What the table says of an image that was judged."""
    box = " ".join(map(str, answer.box or ()))
    return {**answer.to_json(), "verdict": answer.verdict, "box": box}


def problem_cells(problem: Problem) -> dict[str, Any]:
    """What the table says of an image that was not judged."""
    return {"file": name_text(problem.file), "problem": f"{problem.kind}: {problem.detail}"}


def text_cell(value: Any) -> Any:
    """The value of a cell, with an apostrophe before a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.lstrip("'").startswith(_FORMULAS) else value


def plain_text(cell: str) -> str:
    """The inverse of `text_cell`, of a text."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULAS) else cell
