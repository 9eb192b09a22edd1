"""`jaxad compare`: reports of several detectors and seeds in one table, with what is certain about it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from jaxad.cli._command import Command, no_folder, raise_problems
from jaxad.cli._printing import show

if TYPE_CHECKING:
    from jaxad.report.comparison.comparison import Comparison
    from jaxad.report.comparison.tables import Table

CLIPPED = (20, 14)
"""Letters of a name in a table of the terminal, fewer where it would be too wide; files have all of it."""


@dataclass(frozen=True)
class Compare(Command):
    """Compare reports: means and deviations over seeds, paired tests, ranks; tables for papers, curves.

    Reports that differ in the seed alone are one method. The first method is what the others are tested against.
    """

    words: ClassVar[str] = "compare"

    reports: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_REPORT...")]
    """Folders that `jaxad evaluate --out` wrote, runs that have such a report, or folders of these."""
    out: Path | None = None
    """Folder for the tables: compare.json, compare.md, results.csv, tests.csv, tables.tex, document.tex."""
    names: Annotated[tuple[str, ...], tyro.conf.DisallowNone] = ()
    """Names of the methods, in the order in which they are found; from their folders if not given."""
    metrics: Annotated[tuple[str, ...] | None, tyro.conf.DisallowNone] = None
    """Metrics to compare, such as `image_auroc aupro`; all if not given. The first one is shown by category."""
    reference: str | None = None
    """Name of the method that the others are tested against; the first one if not given."""
    protocol: str | None = None
    """Take reports of this protocol alone, where there are several."""
    published: tuple[Path, ...] = ()
    """JSON files of published rows to show besides, as `python -m experiments.published` writes them; those of other
    data sets, categories or protocols are left out."""
    resamples: int = 2000
    """Draws of each bootstrap and each permutation test."""
    seed: int = 0
    """Seed of these draws."""
    curves: bool = False
    """Also draw ROC and precision-recall curves and ranks into --out, as SVG and PDF (extra `figures`)."""

    def run(self) -> None:
        """Compares, prints, writes."""
        from jaxad.config import bad_seed
        from jaxad.io.locks import occupied
        from jaxad.io.progress import Reporter
        from jaxad.report.comparison.comparison import compare
        from jaxad.report.published import read_published

        problems = [] if self.reports else ["reports: none given; name folders that `jaxad evaluate --out` has written"]
        problems += bad_seed("seed", self.seed) + ([] if self.out is None else no_folder(self, "out"))
        if self.curves and self.out is None:
            problems.append("curves = True: needs a folder to draw into; give out = FOLDER")
        raise_problems(problems)
        if self.curves:
            from jaxad.report.comparison.plots import require_matplotlib

            require_matplotlib("curves")
        with Reporter().images("tests", 100, unit="%") as progress:
            done = 0

            def advance(number: int, total: int) -> None:
                nonlocal done
                progress(100 * number // total - done)
                done = 100 * number // total

            rows = [row for file in self.published for row in read_published(file)]
            chosen = ("names", "metrics", "reference", "protocol", "resamples", "seed")
            how = {name: getattr(self, name) for name in chosen}
            found = compare(self.reports, **how, published=rows, progress=advance)
        _print(found)
        if self.out is not None:
            with occupied(self.out, "out"):
                self._write(found, self.out)

    def _write(self, found: Comparison, folder: Path) -> None:
        from jaxad.cli._terminal import width
        from jaxad.io.text import visible
        from jaxad.report.comparison.files import write_comparison

        written = write_comparison(found, folder, figures=self.curves)
        drawn = [path for path in written if path.suffix in (".svg", ".pdf")]
        tables = ", ".join(path.name for path in written[1:] if path not in drawn)
        show(f"see {visible(written[0])}")
        show(textwrap.fill(f"beside it {tables}{f' and {len(drawn)} figures' if drawn else ''}", width()))


def _print(found: Comparison) -> None:
    from jaxad.cli._terminal import width
    from jaxad.report.comparison import tables

    for method in found.methods:
        seeds = f", seeds {' '.join(method.seeds)}" if any(method.seeds) else ""
        changed = f": {', '.join(method.changed)}" if method.changed else ""
        show(textwrap.fill(f"{method.name}: {method.system}{seeds}{changed}", width(), subsequent_indent="  "))
    # The legend has the seeds.
    shown = [_stacked(_without(tables.overview(found), "seeds"))]
    one = len(found.metrics) == 1
    if len(found.categories) > 1 or one:
        shown.append(tables.by_category(found, found.metrics[0]))
    if found.contrasts:
        table = tables.differences(found, categories=one)
        shown.append(_without(table, "metric" if one else "category"))
    for table in shown:
        _print_table(table)
    if found.metrics[0] in found.rankings:
        show("\n" + textwrap.fill(tables.critical_line(found, found.metrics[0]), width()))
    for note in found.notes:
        show(f"note: {note}")


def _stacked(table: Table) -> Table:
    """The table with deviations in lines of their own: eight metrics then have room in 80 columns."""
    rows = []
    for row in table.rows:
        spread = ["" if isinstance(cell, str) else cell.spread for cell in row]
        rows.append(tuple(cell if isinstance(cell, str) else _text(replace(cell, std=None)) for cell in row))
        if any(spread):
            rows.append(("  deviation", *spread[1:]))
    return replace(table, rows=tuple(rows))


def _without(table: Table, head: str) -> Table:
    """The table without a column, which is one of texts unless it holds the seeds."""
    place = table.heads.index(head)
    rows = tuple((*row[:place], *row[place + 1 :]) for row in table.rows)
    heads = (*table.heads[:place], *table.heads[place + 1 :])
    return replace(table, heads=heads, rows=rows, texts=table.texts - (place < table.texts))


def _print_table(table: Table) -> None:
    """Prints a table, in parts that fit the terminal where it is wider."""
    from jaxad.cli._tables import print_table
    from jaxad.cli._terminal import width

    lines, parts = [], []
    for most in CLIPPED:
        lines = [[_clipped(_text(cell), most) for cell in row] for row in (table.heads, *table.rows)]
        widths = [max(map(len, column)) + 2 for column in zip(*lines, strict=True)]
        parts = _parts(widths, table.texts, width())
        if len(parts) == 1:
            break
    show("\n" + textwrap.fill(f"{table.title}:", width()))
    for columns in parts:
        numbers = [column >= table.texts for column in columns]
        heads, *rows = ([line[column] for column in columns] for line in lines)
        print_table(heads, rows, numbers=numbers)


def _parts(widths: Sequence[int], texts: int, room: int) -> list[list[int]]:
    """Columns of each part, those of texts in each."""
    parts = [list(range(texts))]
    for column in range(texts, len(widths)):
        part = parts[-1]
        if len(part) > texts and sum(widths[c] for c in (*part, column)) > room + 2:
            parts.append(part := list(range(texts)))
        part.append(column)
    return parts


def _text(cell: object) -> str:
    from jaxad.report.comparison.tables import Number

    if not isinstance(cell, Number):
        return str(cell)
    mark = "*" if cell.best else ""
    return f"{cell.value}±{cell.spread}{mark}" if cell.spread else f"{cell.value}{mark}"


def _clipped(text: str, most: int) -> str:
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"
