"""The numbers of the page: table, decisions, verdict, tiles."""

from __future__ import annotations

import pytest

from jaxad.inference.decisions import counted
from jaxad.inference.threshold import Limits, Threshold
from jaxad.metrics import METRICS
from jaxad.report import summary
from tests.report.cases import make_decisions, make_report


def test_the_table_has_a_row_for_each_category_and_a_footnote_for_each_reason():
    table = summary.table(make_report())
    assert table["names"] == list(METRICS)
    assert [name for name, *_ in table["rows"]] == ["bottle", "grid", "tile"]
    cells = {name: dict(zip(METRICS, row, strict=True)) for name, _, row in table["rows"]}
    assert (cells["bottle"]["image_auroc"]["delta"], cells["bottle"]["image_auroc"]["sign"]) == ("+5.0", "better")
    assert cells["grid"]["aupro"]["value"] is None
    assert cells["grid"]["aupro"]["mark"] == table["footnotes"]["no masks"]
    assert set(table["footnotes"]) == {"no masks", "no anomalous images"}
    assert table["bound"] is None


def test_decisions_count_at_the_threshold():
    rule = Threshold(0.01, "exact-256", {"": Limits(1.5, 0.9, 0.1, 5)})
    decided = make_decisions({"a": ([1.0, 2, 3, 4], [0, 0, 1, 1])}, threshold=rule)
    decisions = summary.decisions({"decisions": counted(decided, rule)})
    assert decisions is not None
    row = decisions["rows"][0]
    assert (row["found"], row["defects"], row["alarms"], row["normals"]) == (2, 2, 1, 2)
    assert row["rate"] == "1% asked for, up to 16.7% (1/6)"
    assert [(kind["kind"], kind["found"], kind["defects"]) for kind in decisions["kinds"]] == [
        ("blot", 1, 1),
        ("cut", 1, 1),
    ]
    # Wilson's interval of 1 of 2 at 95%.
    assert row["alarm_range"] == pytest.approx((0.0945, 0.9055), abs=1e-4)
    assert row["found_range"][1] == pytest.approx(1)
    assert summary.decisions({}) is None


def test_the_verdict_says_what_the_report_allows():
    report = make_report()
    decided = summary.verdict(report, summary.decisions(make_report()))
    assert decided["headline"].startswith("Finds ")
    assert decided["weakest"] == (0.81, "grid")
    assert (decided["better"], decided["compared"]) == (1, 7)
    assert "95.0%" in summary.verdict(report, None)["headline"]
    report["mean"]["image_auroc"] = None
    assert "no image metric" in summary.verdict(report, None)["headline"]


def test_tiles_leave_out_what_is_undefined():
    report = make_report()
    labels = [tile["label"] for tile in summary.tiles(report, None)]
    assert labels == ["Image AUROC", "Pixel AP", "Pixel AUPRO", "mAD"]
    report["mean"]["aupro"] = None
    with_decisions = summary.tiles(report, summary.decisions(make_report()))
    assert [tile["label"] for tile in with_decisions] == [
        "Defects found",
        "Good parts rejected",
        "Image AUROC",
        "Pixel AP",
        "mAD",
    ]


def test_percent():
    assert (summary.percent(0.1234), summary.percent(1, 0), summary.percent(None)) == ("12.3", "100", "—")
