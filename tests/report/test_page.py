"""report.json and the HTML page of a realistic evaluation."""

from __future__ import annotations

import copy
import csv
import json
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jaxad.errors import ReportError
from jaxad.inference.decisions import COUNTS, Decision, counted
from jaxad.inference.results import Case, Evaluation, MethodFigure, PrototypeFigure, Shown
from jaxad.inference.sheet import Sheet
from jaxad.report import mistakes
from jaxad.report.page import write_report
from tests.report.cases import NO_PIXEL, RULE, make_decisions, make_evaluation, make_report

VOID = {"meta", "br", "img", "wbr", "link", "hr", "input"}


class Page(HTMLParser):
    """The sections, references, images and text of a page; fails on tags that do not nest."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.titles: list[str] = []
        self.verdicts: list[str] = []
        self.charts = 0
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.references += [values[name] or "" for name in ("src", "href", "srcset", "xlink:href") if name in values]
        if tag == "section":
            self.ids.add(values["id"] or "")
        self.charts += values.get("class") == "chart"
        if "data-verdict" in values:
            self.verdicts.append(values["data-verdict"] or "")
        if "title" in values:
            self.titles.append(values["title"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    return write_report(tmp_path_factory.mktemp("report"), make_report(), evaluation=make_evaluation())


def test_both_files_are_written_and_json_round_trips(full):
    assert full.name == "report.html"
    assert sorted(path.name for path in full.parent.iterdir()) == ["images.csv", "report.html", "report.json"]
    text = (full.parent / "report.json").read_text()
    assert json.loads(text) == make_report()
    assert "NaN" not in text


def test_the_page_needs_no_network_and_no_other_file(full):
    text = full.read_text("utf-8")
    page = Page(text)
    assert page.references
    assert all(reference.startswith(("data:image/", "#")) for reference in page.references)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert "@import" not in text
    assert len(text) < 8e6


def test_the_full_page_has_every_section_and_links_to_each(full):
    page = Page(full.read_text("utf-8"))
    assert page.ids == {
        *(
            "results",
            "decisions",
            "mistakes",
            "threshold",
            "curves",
            "gallery",
            "beside",
            "method",
            "prototypes",
            "tsne",
            "speed",
            "data",
            "settings",
        ),
    }
    assert {reference[1:] for reference in page.references if reference.startswith("#")} == page.ids
    # bottle has ROC, PR and scores, grid the same, tile scores alone; t-SNE has two
    assert page.charts == 3 + 3 + 1 + 2


def test_the_summary_counts_at_the_threshold(full):
    evaluation = make_evaluation()
    called = {name: scores > 1.5 for name, (scores, _) in evaluation.scores.items()}
    found = sum(int((called[name] & (labels == 1)).sum()) for name, (_, labels) in evaluation.scores.items())
    alarms = sum(int((called[name] & (labels == 0)).sum()) for name, (_, labels) in evaluation.scores.items())
    text = Page(full.read_text("utf-8")).text
    assert f"Finds {found} of 24 defective parts and wrongly rejects {alarms} of 30 good ones." in text
    assert "Weakest category: grid" in text
    assert "Ahead of Patch bank in 1 of 7 metrics: Image AUROC +5.0 points, Pixel AP −10.0" in text


def test_mistakes_on_the_page_are_the_rows_of_the_csv_and_the_counts_of_the_report(full):
    report = json.loads((full.parent / "report.json").read_text())
    with (full.parent / "images.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    page, listed = Page(full.read_text("utf-8")), Counter(row["verdict"] for row in rows)
    shown, total = Counter(page.verdicts), report["decisions"]["total"]
    for verdict, key in COUNTS.items():
        assert listed[verdict] == total[key] > 0
        assert shown[verdict] == (total[key] if verdict in ("missed", "false alarm") else 0)
    for category, counts in report["decisions"]["categories"].items():
        for defect, found in counts["defects"].items():
            own = [row["verdict"] for row in rows if (row["category"], row["defect"]) == (category, defect)]
            assert Counter(own) == Counter(found)
    assert "1% asked for, up to 16.7% (1/6)" in page.text
    assert "too few hold-out images" in page.text.lower()


def test_mistakes_beyond_twenty_are_folded_and_never_left_out(tmp_path, monkeypatch):
    scores = {"bottle": (np.linspace(2, 3, 33), np.zeros(33))}
    decisions = make_decisions(scores)
    shown = Shown(np.zeros((60, 80, 3), np.uint8), np.tri(16))
    evaluation = Evaluation(decisions=decisions, pictures={decision.index: shown for decision in decisions})
    report = make_report() | {"decisions": counted(decisions, RULE)}
    monkeypatch.setattr(mistakes, "BYTES", 10_000)
    text = write_report(tmp_path, report, evaluation=evaluation).read_text("utf-8")
    assert Page(text).verdicts == ["false alarm"] * 33
    assert text[: text.index("13 more</summary>")].count('data-verdict="false alarm"') == 20
    assert 0 < text.count("data:image/") < 66
    assert f"{33 - text.count('data:image/') // 2} of them without pictures" in text
    # The most wrong comes first.
    assert text.index("bottle/<wbr>32.png") < text.index("bottle/<wbr>31.png") < text.index("bottle/<wbr>0.png")


def test_without_a_threshold_images_are_listed_and_nothing_is_decided(tmp_path):
    evaluation = Evaluation(decisions=make_decisions({"bottle": ([1.0, 2.0], [0, 1])}, threshold=None))
    report = make_report()
    del report["decisions"], report["baseline"]
    page = Page(write_report(tmp_path, report, evaluation=evaluation).read_text("utf-8"))
    assert page.ids == {"results", "speed", "data", "settings"}
    assert (tmp_path / "images.csv").read_text().splitlines()[1:] == [
        "bottle/0.png,bottle,good,0,1.0,,,,,",
        "bottle/1.png,bottle,blot,1,2.0,,,,,",
    ]


def test_the_page_tells_data_settings_speed_and_what_was_timed(full):
    text = Page(full.read_text("utf-8")).text
    for part in (
        "DPDiff-AD has random weights.",
        "The bank has <i>random</i> weights.",
        "The defects of bottle are drawn, those of grid are real.",
        "CC BY-NC-SA 4.0",
        "grid/7.png : truncated image: save it again",
        "exact-256",
        "Maps at 256 px, Gaussian sigma 4.",
        "features, reconstruction and maps",
        "23.4",
        "2 CPU cores",
        "jax 0.10.2",
        "[4, 5]",
        "Set on held-out normal images.",
    ):
        assert part in text


def test_undefined_metrics_are_dashes_with_reason_and_footnote(full):
    page = Page(full.read_text("utf-8"))
    assert page.titles.count("no masks") == 5
    assert page.titles.count("no anomalous images") == 8
    assert "nan" not in page.text.lower().split()


def test_a_bare_report_shows_only_what_it_has(tmp_path):
    report = make_report()
    del report["baseline"], report["data"]["notes"], report["notes"], report["decisions"]
    page = Page(write_report(tmp_path, report).read_text("utf-8"))
    assert page.ids == {"results", "speed", "data", "settings"}
    assert page.tags.count("img") == 0
    assert "Patch bank" not in page.text
    assert 'class="callout"' not in (tmp_path / "report.html").read_text("utf-8")
    assert "Ranks a defective part above a good one in 95.0% of all pairs." in page.text


def test_pixel_columns_vanish_where_no_category_has_masks(tmp_path):
    report = make_report()
    del report["baseline"], report["classes"]["bottle"]
    report["mean"] |= NO_PIXEL
    text = Page(write_report(tmp_path, report).read_text("utf-8")).text
    assert "AUPRO" not in text
    assert "Pixel" not in text
    assert "F1-max" in text


def test_spread_over_seeds_and_binning_error_are_shown(tmp_path):
    report = make_report()
    report["mean"]["std"] = {"image_auroc": 0.0123}
    report["classes"]["bottle"]["pixel_error_bound"] = {"pixel_ap": 2e-6, "aupro": 1e-7}
    text = Page(write_report(tmp_path, report).read_text("utf-8")).text
    assert "±1.2" in text
    assert "binning changes none by more than 2.0e-04 points" in text


def test_nothing_is_written_when_the_report_is_not_valid(tmp_path):
    report = make_report()
    report["mean"]["mad"] = float("nan")
    with pytest.raises(ReportError, match=r"mean\.mad: nan"):
        write_report(tmp_path / "out", report)
    assert not (tmp_path / "out").exists()


def test_writing_again_replaces_the_files_and_gives_the_same_page(tmp_path):
    evaluation = make_evaluation(("bottle",))
    first = write_report(tmp_path, make_report(), evaluation=evaluation).read_bytes()
    assert write_report(tmp_path, make_report(), evaluation=evaluation).read_bytes() == first
    assert len(list(tmp_path.iterdir())) == 3


def test_names_from_the_data_are_escaped(tmp_path):
    report = make_report()
    report["classes"] = {"<script>alert(1)</script>": report["classes"]["bottle"]}
    report["data"]["source"] = 'folder:"><img src=x>'
    page = Page(write_report(tmp_path, report).read_text("utf-8"))
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 0
    assert "<script>alert(1)</script>" in page.text


def test_a_page_of_very_many_noisy_pictures_stays_small_and_says_what_it_left_out(tmp_path):
    draw = np.random.default_rng(0)
    bottle = make_report()["classes"]["bottle"]
    report = make_report() | {"classes": {f"part{i:03d}": copy.deepcopy(bottle) for i in range(150)}, "baseline": None}
    report["classes"]["part077"]["image_auroc"] = 0.5
    image, map = draw.integers(0, 256, (128, 128, 3), np.uint8), draw.random((32, 32))
    cases = [
        Case(Decision(0, f"{name}/a.png", name, "cut", 1, 1.0), image, map, rank, np.eye(64))
        for name in report["classes"]
        for rank in ("best", "median", "worst")
    ]
    decision, noise = cases[0].decision, draw.integers(0, 256, (160, 160, 3), np.uint8)
    more = {
        "methods": [MethodFigure(decision, {f"term {number}": noise for number in range(8)})] * 24,
        "sheet": Sheet(("image", "defect", "ours"), ("a.png",) * 200, ((noise, noise, noise),) * 200),
        "prototypes": [PrototypeFigure(decision, noise, draw.random((8, 16, 16)), [f"local {i}" for i in range(8)])]
        * 99,
    }
    path = write_report(tmp_path, report, evaluation=Evaluation(cases=cases, **more))
    assert 5e6 < path.stat().st_size < 8e6
    text = Page(path.read_text("utf-8")).text
    assert "further categories are left out to keep this page small" in text
    assert "further images are left out to keep this page small; sheet.png has them" in text
    assert "part077/ a.png" in text


def test_curves_of_the_training_say_which_images_they_are_of(tmp_path):
    def sections(training):
        text = write_report(tmp_path, make_report() | {"training": training}).read_text()
        assert Page(text).ids  # Its tags nest.
        return text.partition('<section id="training">')[2].partition("</section>")[0]

    test = sections({"test": {"images": 8, "of": 20, "steps": [0, 5], "values": {"image_auroc": [0.5, 0.75]}}})
    assert "8 of 20 images" in test
    assert "has seen test images" in test
    assert "75.0" in test
    holdout = sections({"holdout": {"steps": [0, 5], "values": {"loss": [0.5, 0.25]}}})
    assert "test images" not in holdout
    assert "not trained on" in holdout
    assert sections({}) == ""
    with pytest.raises(ReportError, match=r"training\.test\.steps"):
        write_report(tmp_path, make_report() | {"training": {"test": {"steps": ["0"], "values": {}}}})
