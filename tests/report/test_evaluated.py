"""A report as Python has it: numbers that show themselves, and the whole page."""

from __future__ import annotations

import copy
import json
import pickle
from html import unescape
from types import SimpleNamespace

import pytest

import jaxad
from jaxad.inference.evaluation import make_report, score
from jaxad.inference.figures import figures
from jaxad.report import evaluated
from jaxad.report.evaluated import Report
from tests.inference.test_method import Redrawing
from tests.report.cases import make_report as made


@pytest.fixture(scope="module")
def report(parts):
    return jaxad.evaluate(Redrawing(), parts.test)


def test_it_is_the_dictionary_of_report_json(report, parts):
    assert isinstance(report, dict)
    assert json.loads(json.dumps(report)) == dict(report)
    assert report["mean"].keys() >= {"image_auroc", "aupro"}
    for other in (pickle.loads(pickle.dumps(report)), copy.copy(report)):
        assert type(other) is Report
        assert other == report


def test_it_is_named_by_a_line_and_shown_as_a_table():
    report = Report(made())
    assert repr(report) == (
        "<Report: DPDiff-AD on folder:parts, exact-256: I-AUROC 95.0, I-AP 97.0, I-F1max 90.0, P-AUROC 96.0, "
        "P-AP 50.0, P-F1max 52.0, AUPRO 88.0, mAD 80.0>"
    )
    html = report._repr_html_()
    assert html.count("<tr>") == 1 + 3 + 1 + 2
    assert [name for name in ("bottle", "grid", "tile", "mean") if f">{name}</th>" in html] == [
        *report["classes"],
        "mean",
    ]
    assert ">81.0</td>" in html
    assert "&lt;i&gt;random&lt;/i&gt; weights" in html
    assert len(html) < 6000


def test_the_page_from_python_is_that_of_the_command(report, parts, tmp_path):
    scored = score(Redrawing(), parts.test)
    same = make_report(scored, parts.test)
    same["environment"] = report["environment"]
    expected = jaxad.write_report(tmp_path / "command", same, evaluation=figures(scored)).read_text()
    assert report.page() == expected
    assert 'id="gallery"' in expected
    assert 'id="method"' in expected
    page = report.save(tmp_path / "python")
    assert page.read_text() == expected
    assert {file.name for file in page.parent.iterdir()} == {"report.json", "report.html", "images.csv"}


def test_once_the_page_is_made_the_detector_is_let_go(parts):
    report = jaxad.evaluate(Redrawing(), parts.test)
    assert report._scored is not None
    page = report.page()
    assert report._scored is None
    assert report.page() == page


def test_show_is_a_frame_in_a_notebook_and_else_the_browser(monkeypatch, tmp_path):
    report, shown, opened = Report(made()), [], []
    monkeypatch.setattr(evaluated, "show_html", shown.append)
    monkeypatch.setattr(evaluated, "webbrowser", SimpleNamespace(open=opened.append))
    monkeypatch.setattr(evaluated.tempfile, "mkdtemp", lambda prefix: tmp_path)
    report.show()
    assert shown == []
    assert opened == [(tmp_path / "report.html").as_uri()]
    assert (tmp_path / "report.html").read_text() == report.page()
    monkeypatch.setattr(evaluated, "in_notebook", lambda: True)
    report.show(height=300)
    (frame,) = shown
    assert "height:300px" in frame
    assert unescape(frame.split('srcdoc="')[1].split('" style')[0]) == report.page()
    assert len(opened) == 1
