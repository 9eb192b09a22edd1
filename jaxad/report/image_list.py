"""images.csv: a row for each test image, what came of it and why; and the scores in it, read back."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxad.errors import ReportError
from jaxad.inference.decisions import Decision
from jaxad.io.json_files import LIST
from jaxad.io.text import visible
from jaxad.io.untrusted import bytes_of, reading
from jaxad.report.prediction_rows import plain_text, text_cell

NAME = "images.csv"
COLUMNS = ("file", "category", "defect", "label", "score", "threshold", "verdict", "box", "flagged", "overlap")
BASELINE = ("baseline_score", "baseline_threshold", "baseline_verdict")


def csv_text(decisions: Sequence[Decision], baseline: Sequence[Decision] = ()) -> str:
    """The content of images.csv.

    Columns are `COLUMNS`, and `BASELINE` where there is a baseline. Numbers have all their digits, so that metrics
    computed from them are those of the report; `label` is 0 or 1; `box` is "x0 y0 x1 y1"; what does not exist is
    empty. A text that a spreadsheet would compute begins with an apostrophe.

    Args:
        decisions: in the order of the rows.
        baseline: the same images as another detector decided about them.
    """
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow([*COLUMNS, *(BASELINE if baseline else ())])
    others = list(baseline) or [None] * len(decisions)
    for mine, other in zip(decisions, others, strict=True):
        box = "" if mine.box is None else " ".join(map(str, mine.box))
        cells = [visible(mine.file), visible(mine.category), visible(mine.defect), mine.label]
        cells += [mine.score, mine.threshold, mine.verdict, box, mine.flagged, mine.overlap]
        cells += [] if other is None else [other.score, other.threshold, other.verdict]
        writer.writerow(map(text_cell, cells))
    return rows.getvalue()


class ImageScores(NamedTuple):
    """The test images of a category, by name.

    Attributes:
        files: their names, sorted.
        labels: int [n], 0 normal, 1 anomalous.
        scores: float64 [n].
    """

    files: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray


def read_scores(file: Path) -> dict[str, ImageScores]:
    """Labels and scores of an images.csv, by category.

    Raises:
        ReportError: no such file, or none that `csv_text` wrote: all rows at fault are named.
    """

    def damaged(said: str) -> ReportError:
        return ReportError(f"{file}: {said}; evaluate again")

    with reading(damaged):
        table = csv.DictReader(io.StringIO(bytes_of(file, LIST.bytes, damaged).decode(), newline=""), strict=True)
        if missing := {"file", "category", "label", "score"} - set(table.fieldnames or ()):
            raise damaged(f"has no column {', '.join(sorted(missing))}")
        rows = [(table.line_num, row) for row in table]
    found: dict[str, list[tuple[str, int, float]]] = {}
    wrong = []
    for line, row in rows:
        label, score = row["label"], _number(row["score"])
        if label not in ("0", "1") or score is None or not row["file"] or row["category"] is None:
            wrong.append(f"line {line}")
        else:
            name = plain_text(row["category"])
            found.setdefault(name, []).append((plain_text(row["file"]), int(label), score))
    if wrong:
        raise damaged(f"needs a file, a category, a label of 0 or 1 and a finite score in {', '.join(wrong[:20])}")
    columns = {name: list(zip(*sorted(images), strict=True)) for name, images in found.items()}
    return {
        name: ImageScores(files, np.array(labels), np.array(scores))
        for name, (files, labels, scores) in columns.items()
    }


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if np.isfinite(number) else None
