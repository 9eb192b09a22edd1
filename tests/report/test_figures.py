"""The figures of the page: which they are, in which order, and what they measure."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np

from jaxad.inference.results import Evaluation, MethodFigure, TsneInput
from jaxad.inference.sheet import Sheet
from jaxad.report import figures
from tests.report.cases import make_evaluation, make_report

NOISE = np.random.default_rng(3).integers(0, 256, (40, 60, 3), np.uint8)


def test_curves_are_those_that_exist():
    sections = figures.curves(make_report(), make_evaluation())
    kinds = {section["category"]: [figure["kind"] for figure in section["figures"]] for section in sections}
    assert kinds == {"bottle": ["roc", "pr", "scores"], "grid": ["roc", "pr", "scores"], "tile": ["scores"]}
    assert sections[0]["figures"][0]["area"] == {"image": 0.95, "pixel": 0.96}
    assert figures.curves(make_report(), Evaluation()) == []


def test_the_gallery_begins_with_the_weakest_category_and_its_best_case():
    evaluation = make_evaluation()
    shown = figures.gallery(make_report(), replace(evaluation, cases=evaluation.cases[::-1]))
    assert shown is not None
    assert [group["category"] for group in shown["categories"]] == ["grid", "bottle", "tile"]
    for group in shown["categories"]:
        assert [card["rank"] for card in group["cards"]] == ["best", "median", "worst"]
        assert {card["decision"].category for card in group["cards"]} == {group["category"]}
    assert shown["left_out"] == 0
    assert figures.gallery(make_report(), Evaluation()) is None


def test_prototypes_of_one_name_share_one_color_scale():
    one = make_evaluation().prototypes[0]
    low, high = replace(one, maps=one.maps * 0.1), replace(one, maps=0.5 + one.maps * 0.1)
    first, second = figures.prototypes([low, high])
    assert [item[:3] for item in first["maps"]] == [item[:3] for item in second["maps"]]
    assert [name for name, *_ in first["maps"]] == ["local 1", "local 2", "global 1"]


def test_the_way_from_image_to_map_is_shown_of_as_many_images_as_fit(monkeypatch):
    evaluation = make_evaluation()
    one = MethodFigure(evaluation.decisions[0], {"input": NOISE, "features before": NOISE, "residual": NOISE})
    (shown,) = figures.methods([one])
    assert [name for name, _ in shown["pictures"]] == ["input", "features before", "residual"]
    assert shown["decision"] is one.decision
    size = sum(len(picture) for _, picture in shown["pictures"])
    monkeypatch.setattr(figures, "_METHOD_BYTES", 2 * size)
    assert len(figures.methods([one] * 5)) == 2
    assert figures.methods([]) == []


def test_detectors_stand_side_by_side_and_images_left_out_are_counted(monkeypatch):
    sheet = Sheet(("image", "defect", "ours"), ("a.png", "b.png", "c.png"), ((NOISE, NOISE, NOISE),) * 3)
    shown = figures.beside(sheet)
    assert shown is not None
    assert (shown["heads"], shown["left_out"]) == (sheet.heads, 0)
    assert [name for name, _ in shown["rows"]] == ["a.png", "b.png", "c.png"]
    monkeypatch.setattr(figures, "_SHEET_BYTES", 2 * sum(map(len, shown["rows"][0][1])))
    fewer = figures.beside(sheet)
    assert fewer is not None
    assert (len(fewer["rows"]), fewer["left_out"]) == (2, 1)
    assert figures.beside(None) is None


def test_reconstruction_moves_anomalous_patches_among_the_normal_ones():
    draw = np.random.default_rng(0)
    anomalous = np.arange(200) % 5 == 0
    after = draw.normal(size=(200, 16)).astype(np.float32)
    shown = figures.tsne(TsneInput(after + 20 * anomalous[:, None], after, anomalous, ["bottle"] * 200))
    assert shown is not None
    assert (shown["patches"], shown["anomalous"], shown["legend"]) == (200, 40, [(0, "bottle")])
    before, later = (view["mixing"] for view in shown["views"])
    assert before == 0
    assert later > 0.5


def test_too_few_patches_have_no_figure():
    few = np.zeros((9, 4), np.float32)
    assert figures.tsne(TsneInput(few, few, np.zeros(9, bool), ["a"] * 9)) is None
    assert figures.tsne(None) is None


def test_what_was_scored_on_the_way_is_drawn_for_each_part_of_the_data():
    columns = {"image_auroc": [0.5, None, 0.9], "aupro": [0.1, 0.2, 0.3], "pixel_ap": [None, None, None]}
    report = make_report() | {
        "training": {
            "test": {"images": 8, "of": 20, "steps": [0, 5, 10], "values": columns},
            "holdout": {"steps": [0, 10], "values": {"loss": [2.0, 1.0], "score_median": [1.0, 3.0]}},
            "nothing": {"steps": [0], "values": {}},
        }
    }
    test, holdout = figures.training(report)
    assert (test["part"], test["images"], test["of"]) == ("test", 8, 20)
    assert [figure["lines"] for figure in test["figures"]] == [[("image", "image AUROC", 0.9)]]
    assert [figure["lines"] for figure in holdout["figures"]] == [
        [("image", "loss", 1.0)],
        [("image", "median", 3.0)],
    ]
    assert (holdout["images"], [figure["share"] for figure in (*test["figures"], *holdout["figures"])]) == (
        None,
        [True, False, False],
    )
    assert figures.training(make_report()) == []


def test_a_page_without_patches_waits_neither_for_sklearn_nor_for_checkpoints():
    code = "import sys, jaxad.report.page; sys.exit(bool({'sklearn', 'jaxad.inference.sheet'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
