"""images.csv: a row for each test image, what came of it and why."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from jaxad.inference.decisions import Decision
from jaxad.io.text import visible
from jaxad.report.prediction_rows import text_cell

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
