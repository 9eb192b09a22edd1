"""The report's charts as inline SVG.

Written by hand because a chart in the page's own markup takes its colors from the style sheet (light, dark and print
alike), needs no network and stays small; a rendered plot does none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from jaxad.metrics.curves import thinned

WIDTH, HEIGHT = 260, 210
POINTS = 120
"""Points of a curve at most."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 8, 34


@dataclass(frozen=True)
class Line:
    """A curve (x [m], y [m]) on the unit square, its CSS class and its name in the tooltip."""

    x: np.ndarray
    y: np.ndarray
    style: str
    name: str


@dataclass(frozen=True)
class _Axis:
    """Maps values in [low, high] to pixels in [start, end], linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: np.ndarray | float) -> np.ndarray:
        low, high, value = (np.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (self.end - self.start) * (np.asarray(value, np.float64) - low) / (high - low)


def unit_chart(lines: Sequence[Line], x_label: str, y_label: str, *, diagonal: bool = False) -> Markup:
    """Curves on the unit square, thinned to `POINTS` each; `diagonal` draws the line of pure chance."""
    x, y = _axes(0, 1, 0, 1)
    ticks = (0, 0.5, 1)
    parts = [_grid_x(x, ticks, _short), _grid_y(y, ticks, _short), _labels(x_label, y_label)]
    if diagonal:
        parts.append(Markup('<path class="chance" d="M{} {}L{} {}"/>').format(*map(_px, (x(0), y(0), x(1), y(1)))))
    for line in lines:
        path = _path(x(line.x), y(line.y))
        parts.append(
            Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(line.style, path, line.name)
        )
    return _svg(parts, f"{y_label} over {x_label}: {', '.join(line.name for line in lines)}")


def step_chart(steps: np.ndarray, lines: Sequence[Line], y_label: str) -> Markup:
    """Values over optimizer steps [m]; the `x` of a line are its steps, and `y` may be of any size.

    Args:
        steps: of all values, at least one.
        lines: the curves.
        y_label: what the values are.
    """
    values = np.concatenate([np.asarray(line.y, np.float64) for line in lines])
    low, high = float(values.min()), float(values.max())
    margin = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    x, y = _axes(0, max(float(steps[-1]), 1.0), low - margin, high + margin)
    parts = [
        _grid_x(x, (0, float(steps[-1]) / 2, max(float(steps[-1]), 1.0)), lambda step: f"{step:,.0f}"),
        _grid_y(y, sorted({low, high}), _significant),
        _labels("step", y_label),
    ]
    for line in lines:
        at, to = x(line.x), y(line.y)
        dots = Markup("").join(
            Markup('<circle class="point {}" cx="{}" cy="{}" r="1.8"><title>{}</title></circle>').format(
                line.style, _px(px), _px(py), f"{line.name} {_significant(value)} after step {step:,.0f}"
            )
            for px, py, step, value in zip(at, to, line.x, line.y, strict=True)
        )
        shape = Markup('<path class="line {}" d="{}"><title>{}</title></path>').format(
            line.style, _path(at, to), line.name
        )
        parts += [shape, dots if len(at) <= POINTS else Markup("")]
    return _svg(parts, f"{y_label} over steps: {', '.join(line.name for line in lines)}")


def score_chart(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> Markup:
    """Histogram of image scores [m]: anomalous images (label 1) above the axis, normal ones below it.

    The score axis is logarithmic where scores are positive and their 99% quantile is over 20 times the median.
    """
    scores, defective = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    reach = scores if threshold is None else np.append(scores, threshold)
    low, high = float(reach.min()), float(reach.max())
    log = low > 0 and np.quantile(scores, 0.99) > 20 * np.median(scores)
    margin = 0.04 * (high - low) or abs(high) * 0.05 or 1.0
    low, high = (low / 1.1, high * 1.1) if log else (low - margin, high + margin)
    edges = np.geomspace(low, high, 37) if log else np.linspace(low, high, 37)
    above, below = (np.histogram(scores[chosen], edges)[0] for chosen in (defective, ~defective))
    x, y = _axes(low, high, -max(1, below.max()), max(1, above.max()), top=20, log=log)
    heights = (-int(below.max()), 0, int(above.max()))
    parts = [
        _grid_x(x, (edges[0], edges[18], edges[-1]), _significant),
        _grid_y(y, sorted(set(heights)), lambda count: f"{abs(count):d}"),
        _labels("image score", "images"),
    ]
    pixels = x(edges)
    for style, counts, sign in (("anomalous", above, 1), ("normal", below, -1)):
        for i in np.flatnonzero(counts):
            top, zero = sorted((float(y(sign * counts[i])), float(y(0))))
            box = map(_px, (pixels[i] + 0.4, top, pixels[i + 1] - pixels[i] - 0.8, zero - top))
            bar = '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{} {}</title></rect>'
            parts.append(Markup(bar).format(style, *box, int(counts[i]), style))
    if threshold is not None:
        at, text = _px(x(threshold)), f"threshold {_significant(threshold)}"
        side = ("end", -4) if float(at) > WIDTH / 2 else ("start", 4)
        line = (
            '<path class="threshold" d="M{0} {1}V{2}"/><text class="note" x="{3}" y="{4}" text-anchor="{5}">{6}</text>'
        )
        place = _px(float(at) + side[1])
        parts.append(Markup(line).format(at, _TOP, HEIGHT - _BOTTOM, place, _TOP + 8, side[0], text))
    return _svg(parts, "Histogram of image scores, anomalous above and normal below the axis")


def scatter_chart(
    points: np.ndarray, colors: np.ndarray, starred: np.ndarray, title: str, *, side: int = 420
) -> Markup:
    """A scatter plot without axes.

    Args:
        points: float [m 2].
        colors: int [m]; number i takes the CSS class "hue-i".
        starred: bool [m]; drawn as stars on top of the others' dots (paper Fig. 7).
        title: text for screen readers.
        side: width and height of the drawing's own coordinates.
    """
    center, spread = (points.max(0) + points.min(0)) / 2, float(np.ptp(points, axis=0).max()) or 1.0
    xy = (points - center) / spread * (side - 24) + side / 2
    parts = []
    for star in (False, True):
        for color in np.unique(colors[starred == star]):
            at = xy[(starred == star) & (colors == color)]
            shape = _STAR if star else "h0"
            path = "".join(f"M{px:.1f} {py:.1f}{shape}" for px, py in at)
            parts.append(Markup('<path class="{} hue-{}" d="{}"/>').format("star" if star else "dot", int(color), path))
    return _svg(parts, title, width=side, height=side)


def _star(radius: float = 6.0) -> str:
    angles = np.arange(10) * np.pi / 5 - np.pi / 2
    corners = (
        np.stack([np.cos(angles), np.sin(angles)], 1) * np.where(np.arange(10) % 2, radius * 0.42, radius)[:, None]
    )
    steps = np.diff(corners, axis=0)
    return f"m0 {-radius:g}" + "".join(f"l{dx:.1f} {dy:.1f}" for dx, dy in steps) + "z"


_STAR = _star()


def _axes(
    x_low: float, x_high: float, y_low: float, y_high: float, *, top: float = _TOP, log: bool = False
) -> tuple[_Axis, _Axis]:
    x = _Axis(x_low, x_high, _LEFT, WIDTH - _RIGHT, log)
    return x, _Axis(y_low, y_high, HEIGHT - _BOTTOM, top)


def _path(x: np.ndarray, y: np.ndarray) -> str:
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in thinned(np.stack([x, y], axis=1), POINTS))


def _grid_x(axis: _Axis, ticks: Sequence[float], text) -> Markup:
    line = Markup(
        '<path class="grid" d="M{0} {1}V{2}"/><text class="tick" x="{0}" y="{3}" text-anchor="{4}">{5}</text>'
    )
    anchors = ["middle"] * len(ticks)
    anchors[0], anchors[-1] = ("start", "end")
    bottom = HEIGHT - _BOTTOM
    return Markup("").join(
        line.format(_px(axis(tick)), _TOP, bottom, bottom + 12, anchor, text(tick))
        for tick, anchor in zip(ticks, anchors, strict=True)
    )


def _grid_y(axis: _Axis, ticks: Sequence[float], text) -> Markup:
    line = Markup(
        '<path class="grid" d="M{1} {0}H{2}"/><text class="tick" x="{3}" y="{4}" text-anchor="end">{5}</text>'
    )
    return Markup("").join(
        line.format(_px(axis(tick)), _LEFT, WIDTH - _RIGHT, _LEFT - 5, _px(float(axis(tick)) + 3), text(tick))
        for tick in ticks
    )


def _labels(x_label: str, y_label: str) -> Markup:
    middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
    text = '<text class="label" x="{0}" y="{1}" text-anchor="middle">{4}</text>'
    text += '<text class="label" transform="translate({2} {3}) rotate(-90)" text-anchor="middle">{5}</text>'
    return Markup(text).format(middle_x, HEIGHT - 6, 9, middle_y, x_label, y_label)


def _svg(parts: Sequence[Markup], title: str, *, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">').format(width, height, title)
    return head + Markup("").join(parts) + Markup("</svg>")


def _px(value: np.ndarray | float) -> str:
    return f"{float(value):.1f}"


def _short(value: float) -> str:
    return f"{value:g}"


def _significant(value: float) -> str:
    return f"{value:.3g}"
