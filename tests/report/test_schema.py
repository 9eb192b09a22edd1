"""The format of report.json, and the choice of gallery cases."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxad.errors import ReportError
from jaxad.inference.results import choose_cases
from jaxad.metrics import IMAGE_METRICS, METRICS, PIXEL_METRICS
from jaxad.report.schema import validate_report
from tests.report.test_page import make_report


def test_a_full_report_is_valid():
    validate_report(make_report())


def test_everything_wrong_is_listed_at_once():
    report = make_report()
    del report["protocol"], report["data"]["source"], report["classes"]["bottle"]["aupro"]
    report["mean"]["pixel_ap"] = 98.7
    report["classes"]["grid"]["n_normal"] = "12"
    report["environment"]["seconds"] = float("nan")
    report["data"]["bad_files"] = [{"file": "a.png"}]
    report["baseline"]["mean"]["mad"] = "high"
    report["config"]["width"] = np.float32(1)
    with pytest.raises(ReportError) as caught:
        validate_report(report)
    for part in (
        "protocol: missing",
        "data.source: missing",
        "classes.bottle.aupro: missing",
        "mean.pixel_ap = 98.7: must lie between 0 and 1",
        "classes.grid.n_normal = '12'",
        "report.environment.seconds = nan: must be finite",
        "data.bad_files[0].kind: missing",
        "baseline.mean.mad = 'high'",
        "report.config.width: float32 is not a JSON value",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["classes"]["bottle"].update(mad=None), "classes.bottle.undefined.mad: missing"),
        (lambda r: r["classes"]["bottle"]["undefined"].update(mad="why"), "undefined.mad: mad is not null"),
        (lambda r: r["environment"].pop("timed"), "environment.timed: missing"),
        (lambda r: r.update(classes={}), "classes: is empty"),
        (lambda r: r["mean"].update(mad=True), "mean.mad = True: must be a number"),
        (lambda r: r["baseline"].pop("classes"), "baseline.classes: missing"),
        (lambda r: r.update(notes="random"), "notes = 'random': must be a list"),
        (lambda r: r["baseline"].update(notes=[1]), "baseline.notes[0] = 1: must be text"),
    ],
)
def test_each_rule_is_checked(change, message):
    report = make_report()
    change(report)
    with pytest.raises(ReportError, match=re.escape(message)):
        validate_report(report)


def test_metric_names_are_the_seven_and_their_mean():
    assert len(set(METRICS)) == 8
    assert (*IMAGE_METRICS, *PIXEL_METRICS, "mad") == METRICS


def test_cases_of_a_category_with_a_missed_defect():
    scores, labels = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.05]), np.array([0, 0, 0, 1, 1, 1])
    assert choose_cases(scores, labels) == {"best": 3, "median": 4, "worst": 5}


def test_the_worst_case_is_a_false_alarm_where_that_is_further_off():
    scores, labels = np.array([0.1, 0.2, 0.99, 0.9, 0.8, 0.5]), np.array([0, 0, 0, 1, 1, 1])
    assert choose_cases(scores, labels) == {"best": 3, "median": 4, "worst": 2}


def test_cases_without_anomalous_images_and_of_tiny_categories():
    assert choose_cases(np.array([0.3, 0.1, 0.2]), np.zeros(3)) == {"best": 1, "median": 2, "worst": 0}
    assert choose_cases(np.array([0.3]), np.ones(1)) == {"best": 0}
    assert choose_cases(np.array([]), np.array([])) == {}
