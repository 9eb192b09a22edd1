"""Figures of a comparison for a paper, as SVG and PDF, by matplotlib (extra `figures`)."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxad.errors import ConfigError
from jaxad.io.atomic import write_whole
from jaxad.io.text import slug, visible
from jaxad.metrics.curves import exact_steps, pr_points, roc_points
from jaxad.report.comparison.comparison import Comparison
from jaxad.report.comparison.significance import Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "pdf")
POINTS = 500
"""Points of a curve at most."""
# The same figure is the same file, whenever it was drawn; text stays text.
STYLE: Any = {"svg.hashsalt": "jaxad", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 8}
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}


def require_matplotlib(name: str) -> None:
    """Raises ConfigError where the package is missing; `name` is the parameter that asks for figures."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"{name} = True: needs matplotlib; pip install 'jaxad[figures]'") from error


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes ROC and precision-recall curves of every category and the ranks by every metric.

    A method has one curve for each seed, all of its color. Categories without both labels have none.

    Returns:
        The files: curves-CATEGORY and ranks-METRIC, each as SVG and PDF.
    """
    import matplotlib

    written = []
    with matplotlib.rc_context(STYLE):
        taken: Counter[str] = Counter()
        for category in comparison.categories:
            if (figure := curves(comparison, category)) is not None:
                taken[name := f"curves-{slug(category)}"] += 1
                written += write_figure(figure, folder, name if taken[name] == 1 else f"{name}-{taken[name]}")
        names = [method.name for method in comparison.methods]
        for metric, found in comparison.rankings.items():
            written += write_figure(ranks(found, names), folder, f"ranks-{metric}")
    return written


def curves(comparison: Comparison, category: str) -> Figure | None:
    """ROC and precision-recall curves of image scores; None where no report has scores, or they have one label.

    Args:
        comparison: of the methods, each of one color.
        category: whose images.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn = False
    for number, method in enumerate(comparison.methods):
        for first, result in enumerate(method.results):
            images = result.images.get(category)
            if images is None or len(set(images.labels.tolist())) < 2:
                continue
            steps, drawn = exact_steps(images.scores, images.labels), True
            label = _text(method.name) if first == 0 else None
            for axes, points in ((left, roc_points(steps, POINTS)), (right, pr_points(steps, POINTS))):
                axes.plot(*points.T, color=f"C{number % 10}", linewidth=0.8, label=label)
    if not drawn:
        return None
    left.plot([0, 1], [0, 1], color="0.7", linewidth=0.5, linestyle=":")
    names = (("false-positive rate", "true-positive rate"), ("recall", "precision"))
    for axes, (x, y) in zip((left, right), names, strict=True):
        axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=3)
    figure.suptitle(_text(category))
    return figure


def ranks(found: Ranking, names: list[str]) -> Figure:
    """The critical-difference diagram (Demšar, JMLR 7, 2006): bars join methods that are not told apart.

    Args:
        found: ranks by one metric.
        names: of the methods, in the order of `found.ranks`.
    """
    from matplotlib.figure import Figure

    order = sorted(range(len(names)), key=lambda place: found.ranks[place])
    half, bars = (len(names) + 1) // 2, len(found.groups)
    depth = 0.5 * bars + half + 1
    figure = Figure(figsize=(5.5, 0.6 + 0.22 * depth), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0.5, len(names) + 0.5), ylim=(-depth, 1.6))
    axes.axis("off")
    line = {"color": "black", "linewidth": 0.8, "clip_on": False}
    axes.plot([1, len(names)], [0, 0], **line)
    for tick in range(1, len(names) + 1):
        axes.plot([tick, tick], [0, 0.2], **line)
        axes.text(tick, 0.3, str(tick), ha="center", va="bottom")
    axes.plot([1, 1 + found.critical], [1.3, 1.3], **line)
    axes.text(1 + found.critical + 0.05, 1.3, f"CD {found.critical:.2f}", va="center")
    for level, group in enumerate(found.groups):
        ends = [found.ranks[group[0]] - 0.03, found.ranks[group[-1]] + 0.03]
        axes.plot(ends, [-0.4 - 0.5 * level] * 2, **{**line, "linewidth": 2.5})
    for place, method in enumerate(order):
        left = place < half
        row = place if left else len(names) - 1 - place
        y, edge = -(0.5 * bars + 0.7 + row), 0.6 if left else len(names) + 0.4
        axes.plot([found.ranks[method], found.ranks[method], edge], [0, y, y], **line)
        text = f"{_text(names[method])} ({found.ranks[method]:.2f})"
        axes.text(edge + (-0.05 if left else 0.05), y, text, ha="right" if left else "left", va="center")
    return figure


def write_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes a figure that was drawn in `STYLE` in each of `FORMATS`; returns the files."""
    written = []
    for kind in FORMATS:
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, metadata=_UNDATED[kind])
        written.append(write_whole(folder / f"{name}.{kind}", stream.getvalue()))
    return written


def _text(name: str) -> str:
    """A name that matplotlib does not read as mathematics; what its font has no letter for stands as its code."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    letters = (c if font.get_char_index(ord(c)) else f"\\u{ord(c):04x}" for c in visible(name))
    return "".join(letters).replace("$", r"\$")
