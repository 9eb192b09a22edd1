"""A comparison as tables, the same for terminal, Markdown and LaTeX; and as long CSV for other programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from jaxad.io.text import apart, visible
from jaxad.metrics import LABELS
from jaxad.report.comparison.comparison import Comparison
from jaxad.report.comparison.methods import MEAN, Method
from jaxad.report.comparison.significance import LEVEL
from jaxad.report.prediction_rows import text_cell

DIGITS = 1


@dataclass(frozen=True)
class Number:
    """A cell of percent.

    Attributes:
        mean: 0..1, None where it is undefined.
        std: over seeds, None of one seed.
        best: whether it is the highest of those that it stands among.
    """

    mean: float | None
    std: float | None = None
    best: bool = False

    @property
    def value(self) -> str:
        """The mean in percent, "-" where it is undefined."""
        return "-" if self.mean is None else f"{100 * self.mean:.{DIGITS}f}"

    @property
    def spread(self) -> str:
        """The deviation in points, "" where there is none."""
        return "" if self.std is None else f"{100 * self.std:.{DIGITS}f}"


Cell = Number | str


@dataclass(frozen=True)
class Table:
    """Rows under heads.

    Attributes:
        name: for files and references, e.g. "image_auroc".
        title: what it shows, one sentence.
        heads: of the columns.
        rows: cells; the last row is a mean where `ruled`.
        ruled: whether a rule stands above the last row.
        texts: how many columns, from the left, hold no numbers.
    """

    name: str
    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ruled: bool = False
    texts: int = 1


def tables(comparison: Comparison) -> list[Table]:
    """All tables: methods by metrics, each metric by category, differences to the reference, ranks."""
    found = [overview(comparison), *(by_category(comparison, metric) for metric in comparison.metrics)]
    found += [differences(comparison)] if comparison.contrasts else []
    return found + ([ranks(comparison)] if comparison.rankings else [])


def overview(comparison: Comparison) -> Table:
    """The mean over the categories of every metric, and published values below those that may be compared."""
    metrics, rows = comparison.metrics, []
    best = {metric: _highest([method.mean(metric) for method in comparison.methods]) for metric in metrics}
    for method in comparison.methods:
        cells = [_number(method, metric, MEAN, best[metric]) for metric in metrics]
        rows.append((method.name, str(len(method.seeds)), *cells))
        if method.name in comparison.published:
            row = comparison.published[method.name]
            rows.append((f"  {row.source}", "", *(Number(row.values.get(metric)) for metric in metrics)))
    for row in comparison.others:
        cells = [Number(row.values.get(metric)) for metric in metrics]
        rows.append((f"{row.row} ({row.source})" if row.row else row.source, "", *cells))
    seeds = ", and deviation over seeds" if any(len(method.seeds) > 1 for method in comparison.methods) else ""
    count = len(comparison.categories)
    title = f"Mean over {count} categor{'y' if count == 1 else 'ies'}{seeds}, under {comparison.protocol}, in percent"
    return Table("mean", title, ("method", "seeds", *(LABELS[name].short for name in metrics)), tuple(rows))


def by_category(comparison: Comparison, metric: str) -> Table:
    """One metric of every method on every category."""
    mean, rows = apart("mean", comparison.categories), []
    for category in (*comparison.categories, MEAN):
        best = _highest([method.mean(metric, category) for method in comparison.methods])
        cells = [_number(method, metric, category, best) for method in comparison.methods]
        rows.append((category or mean, *cells))
    names = tuple(method.name for method in comparison.methods)
    return Table(metric, f"{_title(metric)} by category, in percent", ("category", *names), tuple(rows), ruled=True)


def differences(comparison: Comparison, *, categories: bool = True) -> Table:
    """Every method less the reference, with interval and p-values.

    Args:
        comparison: of the methods.
        categories: whether to show single categories besides the mean.
    """
    mean = apart("mean", comparison.categories)
    rows = []
    for contrast in comparison.contrasts:
        if contrast.category != MEAN and not categories:
            continue
        found = contrast.difference
        interval = "-" if found.low is None or found.high is None else f"{_points(found.low)} to {_points(found.high)}"
        names = (contrast.method, LABELS[contrast.metric].short, contrast.category or mean)
        rows.append((*names, _points(found.value), interval, *map(p_text, (found.permutation_p, contrast.holm_p))))
    title = (
        f"Difference to {comparison.reference} in points: {100 * LEVEL:.0f}% bootstrap interval, p of the paired "
        f"permutation test, and p after Holm's correction ({comparison.resamples:,} resamples)"
    )
    heads = ("method", "metric", "category", "difference", "interval", "p", "Holm")
    return Table("differences", title, heads, tuple(rows), texts=3)


def ranks(comparison: Comparison) -> Table:
    """Mean ranks by metric, and the critical difference."""
    names = [method.name for method in comparison.methods]
    rows = []
    for metric, found in comparison.rankings.items():
        mean = [f"{rank:.2f}" for rank in found.ranks]
        rows.append((LABELS[metric].short, *mean, p_text(found.friedman_p), f"{found.critical:.2f}"))
    count = max(found.categories for found in comparison.rankings.values())
    title = f"Mean ranks over {count} categories, p of Friedman's test, and Nemenyi's critical difference (CD)"
    return Table("ranks", title, ("metric", *names, "p", "CD"), tuple(rows))


def critical_line(comparison: Comparison, metric: str) -> str:
    """The ranks of a metric in one sentence: which methods cannot be told apart."""
    found, names = comparison.rankings[metric], [method.name for method in comparison.methods]
    order = sorted(range(len(names)), key=lambda place: found.ranks[place])
    listed = ", ".join(f"{names[place]} {found.ranks[place]:.2f}" for place in order)
    groups = "; ".join(", ".join(names[place] for place in group) for group in found.groups)
    alike = f"not told apart: {groups}" if groups else "all are told apart"
    return (
        f"ranks by {LABELS[metric].short} over {found.categories} categories: {listed}; "
        f"critical difference {found.critical:.2f} (Friedman p {p_text(found.friedman_p)}); {alike}"
    )


def markdown(table: Table) -> str:
    """The table in Markdown, best values in bold."""

    def cell(value: Cell) -> str:
        if isinstance(value, str):
            return visible(value).strip().replace("|", "\\|")
        text = f"{value.value} ± {value.spread}" if value.spread else value.value
        return f"**{text}**" if value.best else text

    aligned = [":--" if column < table.texts else "--:" for column in range(len(table.heads))]
    lines = [table.heads, aligned, *table.rows]
    rows = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
    return f"{visible(table.title)}.\n\n{rows}\n"


def long_csv(comparison: Comparison) -> str:
    """A row for each method, category (empty for the mean), metric and seed; values in 0..1 with all digits."""
    rows: list[tuple[object, ...]] = [("method", "category", "metric", "seed", "value")]
    for method in comparison.methods:
        for category in (*comparison.categories, MEAN):
            for metric in comparison.metrics:
                values = zip(method.seeds, method.values(metric, category), strict=True)
                rows += [(method.name, category, metric, seed, value) for seed, value in values]
    return _csv(rows)


def tests_csv(comparison: Comparison) -> str:
    """A row for each contrast, with all that was computed."""
    heads = ("method", "reference", "metric", "category", "pairs", "difference", "low", "high")
    rows: list[tuple[object, ...]] = [(*heads, "bootstrap_p", "permutation_p", "holm_p")]
    for one in comparison.contrasts:
        d = one.difference
        names = (one.method, comparison.reference, one.metric, one.category, one.pairs)
        rows.append((*names, d.value, d.low, d.high, d.bootstrap_p, d.permutation_p, one.holm_p))
    return _csv(rows)


def p_text(value: float | None) -> str:
    """A p-value with two digits that count, "-" where there is none."""
    return "-" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _csv(rows: Sequence[Sequence[object]]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, lineterminator="\n").writerows([map(text_cell, row) for row in rows])
    return stream.getvalue()


def _number(method: Method, metric: str, category: str, best: float | None) -> Number:
    mean = method.mean(metric, category)
    return Number(mean, method.deviation(metric, category), mean is not None and mean == best)


def _highest(values: Sequence[float | None]) -> float | None:
    """The highest of several; None of one, which is no best."""
    known = [value for value in values if value is not None]
    return max(known) if len(known) > 1 else None


def _points(value: float) -> str:
    # No negative zero.
    return f"{round(100 * value, DIGITS) + 0.0:+.{DIGITS}f}"


def _title(metric: str) -> str:
    label = LABELS[metric]
    return label.name if metric == "mad" else f"{label.of} {label.name}"
