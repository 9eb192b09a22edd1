"""What a comparison leaves in a folder."""

from __future__ import annotations

from pathlib import Path

from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.report.comparison import tables
from jaxad.report.comparison.comparison import Comparison
from jaxad.report.comparison.latex import DOCUMENT, latex

MARKDOWN = "compare.md"


def write_comparison(comparison: Comparison, folder: Path | str, *, figures: bool = False) -> list[Path]:
    """Writes the tables of a comparison; files of the same names are replaced.

    Args:
        comparison: of `compare`.
        folder: made if missing.
        figures: also curves and ranks, by matplotlib.

    Returns:
        The files: compare.md with all tables and notes; compare.json with everything; results.csv, a value in each row;
        tests.csv, a difference in each row; tables.tex, for a document with booktabs; document.tex, which is one.

    Raises:
        ConfigError: figures are wanted, and matplotlib is missing.
    """
    folder, found = Path(folder), tables.tables(comparison)
    drawn = []
    if figures:
        from jaxad.report.comparison.plots import require_matplotlib, write_figures

        require_matplotlib("figures")
        drawn = write_figures(comparison, folder)
    lines = [tables.critical_line(comparison, metric) for metric in comparison.rankings]
    notes = "".join(f"\n- {line}\n" for line in (*lines, *comparison.notes))
    for_paper = [tables.differences(comparison, categories=False) if t.name == "differences" else t for t in found]
    contents = {
        MARKDOWN: "\n".join(map(tables.markdown, found)) + notes,
        "compare.json": json_text(comparison.to_json(), indent=2) + "\n",
        "results.csv": tables.long_csv(comparison),
        "tests.csv": tables.tests_csv(comparison),
        "tables.tex": latex(for_paper),
        "document.tex": DOCUMENT,
    }
    return [*(write_whole(folder / name, content) for name, content in contents.items()), *drawn]
