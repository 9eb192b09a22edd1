"""What one answer says, and that it is drawn only when it is looked at."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxad.data.tiles import Tiling
from jaxad.inference.answer import Answer, Answers
from jaxad.inference.heat import heat, overlay
from jaxad.inference.maps import heat_scale
from jaxad.inference.prediction import at_once
from jaxad.inference.threshold import Limits, Threshold

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
RULE = Threshold(0.01, "exact-256", {"": Limits(0.5, 0.5, 0.1, 9), "disc": Limits(2.0, 5.0, 0.1, 9, spread=1.0)})


def answer(score: float = 1.0, rule: Threshold | None = RULE, category: str = "", hot: float = 0.9) -> Answer:
    heat = np.zeros((20, 30), np.float32)
    heat[5:10, 5:10] = hot
    return Answer("a.png", category, score, IMAGE, rule, "abc", heat)


def test_decisions_are_those_of_the_category():
    pooled, own = answer(), answer(category="disc")
    assert (pooled.threshold, pooled.anomalous, pooled.verdict) == (0.5, True, "anomalous")
    assert (own.threshold, own.anomalous, own.verdict, own.box) == (2.0, False, "normal", None)
    assert own.scaled == RULE.scaled(1.0, "disc") < 0.5 < (pooled.scaled or 0)


def test_box_and_mask_are_in_pixels_of_the_image():
    found = answer()
    assert found.mask is not None
    assert found.map.shape == found.mask.shape == (40, 60)
    assert found.mask[14, 14]
    assert not found.mask[30, 40]
    assert found.box is not None
    left, top, right, bottom = found.box
    assert found.mask[top:bottom, left:right].sum() == found.mask.sum()
    assert abs(left - 10) < 3
    assert abs(bottom - 20) < 3


def test_a_faint_anomaly_has_a_box_though_no_pixel_passes():
    faint = answer(hot=0.3)
    assert faint.mask is not None
    assert not faint.mask.any()
    assert faint.box is not None


def test_nothing_is_drawn_before_it_is_asked_for():
    found = answer()
    assert found.verdict == "anomalous"
    assert {"map", "box", "mask", "overlay"}.isdisjoint(vars(found))
    assert found.overlay is found.overlay


def test_overlays_outline_what_is_above_the_pixel_limit():
    low, high = heat_scale(0.5, np.array([0.1]))
    outlined, below = answer(), answer(hot=0.45)
    assert (outlined.overlay != overlay(IMAGE, outlined.map, low=low, high=high)).any()
    np.testing.assert_array_equal(below.overlay, overlay(IMAGE, below.map, low=low, high=high))


def test_without_a_rule_there_is_no_decision():
    found = answer(rule=None)
    assert found.verdict == "undecided"
    assert found.overlay.shape == IMAGE.shape
    line = found.to_json()
    assert [line[name] for name in ("threshold", "anomalous", "box", "scaled")] == [None] * 4
    assert (line["score"], line["model"]) == (1.0, "abc")


@pytest.mark.parametrize("name", ["caf\udce9.png", "new\nline.png"])
def test_lines_hold_names_that_terminals_can_show(name):
    found = Answer(str(Path(name)), "", 1.0, IMAGE, None, "", np.zeros((2, 2), np.float32))
    assert "\\x" in found.to_json()["file"]
    assert found.to_json()["model"] is None


def test_no_batch_is_larger_than_the_images_need():
    whole, tiled = (SimpleNamespace(tiling=tiling) for tiling in (None, Tiling(64)))
    assert [at_once(whole, images) for images in (1, 3, 40)] == [1, 4, 16]
    assert at_once(whole, 40, 3) == 3
    assert at_once(tiled, 1) == 16


def test_answers_are_named_by_a_line_and_shown_by_their_overlays():
    assert repr(answer(category="disc")) == "<normal: a.png, disc, score 1, threshold 2>"
    assert repr(answer(rule=None)) == "<undecided: a.png, score 1>"
    few = Answers([answer(score, category="disc") for score in (1.0, 3.0, 2.5)])
    assert repr(few) == "<3 answers: 1 normal, 2 anomalous>"
    html = few._repr_html_()
    assert html.count("data:image/jpeg;base64,") == 3
    assert html.index("score 3,") < html.index("score 2.5") < html.index("score 1,")
    many = Answers(answer(float(score)) for score in range(30))
    shown = many._repr_html_()
    assert shown.count("<img") == 24
    assert "score 29," in shown
    assert "score 5," not in shown
    assert repr(Answers()) == "<0 answers: none>"


def test_a_heatmap_has_the_colors_of_the_overlay_and_needs_no_explanation():
    found = answer()
    low, high = heat_scale(0.5, np.array([0.1]))
    np.testing.assert_array_equal(found.pictures("heatmap")[""], heat(found.map, low=low, high=high))
    assert found.pictures("terms") == {}
