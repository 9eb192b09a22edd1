"""The page in a real browser (extra `browser`, and a Chromium): at the width of a desk, of a phone and of paper."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections import Counter

import pytest

from jaxad.report.page import write_report
from tests.report.cases import make_evaluation, make_report

pytestmark = pytest.mark.browser
WIDTHS = {"desktop": 1280, "phone": 390, "print": 703}
"""Pixels; on paper those of A4 between the margins."""
OUTSIDE = """
() => [...document.querySelectorAll("body *")].filter(e => {
  if (e.closest(".scroll") && !e.matches(".scroll") || e.closest("svg, select")) return false;
  const box = e.getBoundingClientRect();
  return box.width > 0 && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map(e => e.outerHTML.slice(0, 80))
"""
ORPHANS = """
() => [...document.querySelectorAll("h1, h2, h3, h4")].filter(e => {
  const next = e.nextElementSibling;
  const heading = next && /^H[1-4]$/.test(next.tagName) && next.tagName <= e.tagName;
  return !next || heading || next.getBoundingClientRect().height === 0;
}).map(e => e.textContent)
"""


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        # Debian's, where there is one, else Playwright's own.
        chromium = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    report, evaluation = make_report(), make_evaluation()
    long = "a-category-whose-name-is-as-long-as-somebody-may-well-have-made-it"
    report["classes"] = {name if name != "grid" else long: values for name, values in report["classes"].items()}
    return write_report(tmp_path_factory.mktemp("report"), report, evaluation=evaluation)


@pytest.fixture
def page(browser, file, request):
    name, script = getattr(request, "param", ("desktop", True))
    context = browser.new_context(
        viewport={"width": WIDTHS[name], "height": 900}, java_script_enabled=script, offline=True
    )
    page, asked, errors = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(error))
    if name == "print":
        page.emulate_media(media="print")
    page.goto(file.as_uri())
    yield page
    assert errors == []
    assert [url for url in asked if not url.startswith("data:")] == [file.as_uri()]
    context.close()


@pytest.mark.parametrize("page", [(name, True) for name in WIDTHS], indirect=True, ids=WIDTHS)
def test_nothing_is_wider_than_the_page_and_no_heading_stands_alone(page):
    for details in page.locator("details").all():
        details.evaluate("e => e.open = true")
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(ORPHANS) == []


def test_on_paper_no_page_ends_with_a_heading(page):
    from pypdf import PdfReader

    headings = {" ".join(text.split()) for text in page.locator("h2, h3, h4").all_inner_texts()}
    sheets = PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True, print_background=True))).pages
    assert len(sheets) > 1
    lines = [[" ".join(line.split()) for line in sheet.extract_text().splitlines() if line.strip()] for sheet in sheets]
    assert headings & {line for sheet in lines for line in sheet}
    assert [sheet[-1] for sheet in lines if sheet and sheet[-1] in headings] == []


def rows(file):
    with (file.parent / "images.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_slider_counts_what_the_csv_says(page, file):
    tool, said = page.locator("#try"), page.locator("#try output")
    for category in ("bottle", "tile"):
        tool.locator("select").select_option(category)
        own = [row for row in rows(file) if row["category"] == category]
        verdicts = Counter(row["verdict"] for row in own)
        assert said.get_attribute("data-found") == str(verdicts["found"])
        assert said.get_attribute("data-alarms") == str(verdicts["false alarm"])
        assert "in force" in said.inner_text()
        last = int(tool.locator("input").get_attribute("max"))
        for step in (0, last // 3, last):
            tool.locator("input").fill(str(step))
            limit = float(re.search(r"--value (\S+)", tool.inner_text())[1])
            above = [row["label"] for row in own if float(row["score"]) > limit]
            assert said.get_attribute("data-found") == str(above.count("1"))
            assert said.get_attribute("data-alarms") == str(above.count("0"))
        tool.locator("button").click()
        assert "in force" in said.inner_text()


@pytest.mark.parametrize("page", [("desktop", False)], indirect=True)
def test_without_scripts_there_is_the_table(page):
    assert not page.locator("#try").is_visible()
    assert page.locator("#threshold tr.force").count() == 3
    assert page.locator("#threshold tr.force").first.is_visible()


def test_every_mistake_says_in_words_what_it_is(page, file):
    wrong = Counter(row["verdict"] for row in rows(file))
    texts = page.locator(".mistake").all_inner_texts()
    assert len(texts) == wrong["missed"] + wrong["false alarm"]
    for verdict in ("missed", "false alarm"):
        assert sum(verdict in text.split("\n")[0] for text in texts) == wrong[verdict]
    legend = page.locator("#mistakes .lines").inner_text()
    assert "broken line" in legend.replace("unbroken line", "")
    assert "unbroken line" in legend
