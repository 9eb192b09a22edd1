"""The format of report.json."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest

from jaxad.errors import ReportError
from jaxad.report.schema import SCHEMA, validate_report
from tests.report.cases import make_report


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
        "$: 'protocol' is a required",
        "$.data: 'source' is a required",
        "$.classes.bottle: 'aupro' is a required",
        "$.mean.pixel_ap: 98.7 is greater",
        "$.classes.grid.n_normal: '12'",
        "$.environment.seconds: nan",
        "$.data.bad_files[0]: 'kind' is a required",
        "$.data.bad_files[0]: 'detail' is a required",
        "$.baseline.mean.mad: 'high'",
        "$.config.width: np.float32(1.0)",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["classes"]["bottle"].update(mad=None), "$.classes.bottle.undefined: 'mad' is required"),
        (lambda r: r["classes"]["bottle"]["undefined"].update(mad="why"), "$.classes.bottle.undefined.mad: must be"),
        (lambda r: r["environment"].pop("timed"), "$.environment: 'timed' is required"),
        (lambda r: r["environment"].update(timed=""), "$.environment.timed: ''"),
        (lambda r: r.update(classes={}), "$.classes: {}"),
        (lambda r: r["mean"].update(mad=True), "$.mean.mad: True"),
        (lambda r: r["baseline"].pop("classes"), "$.baseline: 'classes' is a required"),
        (lambda r: r.update(notes="random"), "$.notes: 'random'"),
        (lambda r: r["baseline"].update(notes=[1]), "$.baseline.notes[0]: 1"),
        (lambda r: r["config"].update(deep=[{"x": float("inf")}]), "$.config.deep[0].x: inf"),
        (lambda r: r["config"].update({"deep": {3: "x"}}), "$.config.deep: 3"),
    ],
)
def test_each_rule_is_checked(change, message):
    report = make_report()
    change(report)
    with pytest.raises(ReportError, match=re.escape(message)):
        validate_report(report)


def test_a_baseline_may_be_null_and_further_keys_are_allowed():
    validate_report(make_report() | {"baseline": None, "line": {"number": 7, "shifts": ("early", "late")}})


def test_the_schema_is_one_of_json():
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(SCHEMA)))
