"""Inline SVG charts: valid XML, true to the numbers, escaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np

from jaxad.report import charts


def test_unit_chart_is_xml_and_escapes_names():
    line = charts.Line(np.array([0, 1]), np.array([0, 1]), "image", "<b>image</b>")
    svg = charts.unit_chart([line], "recall", "precision", diagonal=True)
    root = ElementTree.fromstring(svg)
    paths = [path.get("class") for path in root.iter("path")]
    assert "line image" in paths
    assert "chance" in paths
    assert next(root.iter("title")).text == "<b>image</b>"


def test_score_chart_counts_every_image_on_its_side():
    draw = np.random.default_rng(0)
    scores, labels = draw.normal(size=90), np.repeat([0, 1], [60, 30])
    root = ElementTree.fromstring(charts.score_chart(scores, labels, 0.5))
    counts = {"normal": 0, "anomalous": 0}
    zero = {}
    for bar in root.iter("rect"):
        style = bar.get("class", "").split()[1]
        counts[style] += int(re.match(r"\d+", bar[0].text or "").group())  # type: ignore[union-attr]
        top, height = float(bar.get("y", 0)), float(bar.get("height", 0))
        zero.setdefault(style, round(top + height if style == "anomalous" else top))
    assert counts == {"normal": 60, "anomalous": 30}
    assert abs(zero["normal"] - zero["anomalous"]) <= 1
    assert any("threshold 0.5" in (text.text or "") for text in root.iter("text"))


def test_score_chart_takes_constant_and_heavy_tailed_scores_and_no_threshold():
    ElementTree.fromstring(charts.score_chart(np.ones(4), np.array([0, 0, 1, 1]), None))
    heavy = np.concatenate([np.geomspace(1e-4, 1e-3, 50), [10.0, 20.0]])
    root = ElementTree.fromstring(charts.score_chart(heavy, heavy > 1, 0.01))
    assert len({bar.get("x") for bar in root.iter("rect")}) > 5


def test_scatter_draws_every_point_once():
    points = np.random.default_rng(0).normal(size=(50, 2))
    starred = np.arange(50) < 8
    root = ElementTree.fromstring(charts.scatter_chart(points, np.arange(50) % 3, starred, "t-SNE"))
    drawn = {"dot": 0, "star": 0}
    for path in root.iter("path"):
        drawn[path.get("class", "").split()[0]] += path.get("d", "").count("M")
    assert drawn == {"dot": 42, "star": 8}


def test_a_chart_over_steps_is_true_to_its_numbers():
    steps = np.array([0.0, 5.0, 20.0])
    line = charts.Line(steps, np.array([3.0, 1.0, 2.0]), "image", "<i>loss</i>")
    root = ElementTree.fromstring(charts.step_chart(steps, [line], "loss"))
    dots = [(float(dot.get("cx", 0)), float(dot.get("cy", 0)), dot[0].text) for dot in root.iter("circle")]
    assert [text for *_, text in dots] == [f"<i>loss</i> {y} after step {x}" for x, y in ((0, 3), (5, 1), (20, 2))]
    # To scale, and higher values above lower ones.
    (x0, y3, _), (x5, y1, _), (x20, y2, _) = dots
    assert abs((x5 - x0) / (x20 - x0) - 0.25) < 0.01
    assert abs((y1 - y2) / (y1 - y3) - 0.5) < 0.01
    assert y3 < y2 < y1
    ElementTree.fromstring(charts.step_chart(np.zeros(1), [charts.Line(np.zeros(1), np.ones(1), "image", "x")], "y"))
