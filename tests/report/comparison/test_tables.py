"""Tables as Markdown, CSV and LaTeX, whatever methods and categories are called."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from jaxad.report.comparison.comparison import compare
from jaxad.report.comparison.files import write_comparison
from jaxad.report.comparison.latex import escaped
from jaxad.report.comparison.significance import Difference
from jaxad.report.comparison.tables import Number, Table, by_category, differences, markdown, overview, tables
from tests.report.comparison.made_reports import write_made

ODD = ("50%_of & more", "Schlüssel $x^2$", "螺丝 \\cmd{a}#~|")
"""Names that LaTeX, Markdown or a spreadsheet would read otherwise."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, skill, seeds in (("a_b", 2.0, (0, 1)), ("=c", 1.0, (0,)), ("d", 0.3, (0,))):
        for seed in seeds:
            write_made(root / name / f"seed-{seed}", skill, seed=seed, system=name, categories=ODD)
    return compare([root / "a_b", root / "=c", root / "d"], resamples=100)


def test_a_notebook_shows_the_means(found):
    assert repr(found).startswith("<Comparison of a_b (2 seeds), =c (1 seeds), d (1 seeds) on 3 categories, ")
    html, (method, *_) = found._repr_html_(), found.methods
    mean, deviation = method.mean("image_auroc"), method.deviation("image_auroc")
    assert f">{100 * mean:.1f} ± {100 * deviation:.1f}</td>" in html
    assert html.count("<tr>") == 1 + 3


@pytest.fixture(scope="module")
def folder(found, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    write_comparison(found, out, figures=True)
    return out


def test_rows_are_methods_or_categories_and_the_best_is_marked(found):
    table = overview(found)
    assert [row[:2] for row in table.rows] == [("a_b", "2"), ("=c", "1"), ("d", "1")]
    best = table.rows[0][2]
    assert best == Number(found.methods[0].mean("image_auroc"), found.methods[0].deviation("image_auroc"), True)
    by = by_category(found, "image_auroc")
    assert [row[0] for row in by.rows] == [*ODD, "mean"]
    assert by.rows[-1][1:] == (best, *(Number(method.mean("image_auroc")) for method in found.methods[1:]))
    assert {row[2] for row in differences(found, categories=False).rows} == {"mean"}


def test_points_have_a_sign_and_nothing_has_none_below_zero(found):
    def shown(value):
        contrast = replace(found.contrasts[0], difference=Difference(value), holm_p=None)
        return differences(replace(found, contrasts=(contrast,))).rows[0][3:]

    assert shown(-0.0001) == ("+0.0", "-", "-", "-")
    assert shown(-0.0123)[0] == "-1.2"


def test_markdown_has_a_cell_for_each_head():
    table = Table("t", "A | title", ("a|b", "x"), (("p|q", Number(0.9512, 0.004, True)), ("r", Number(None))))
    lines = markdown(table).splitlines()
    assert lines[2:] == ["| a\\|b | x |", "| :-- | --: |", "| p\\|q | **95.1 ± 0.4** |", "| r | - |"]


def test_csv_has_every_number_with_all_digits(folder, found):
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert len(rows) == 4 * 4 * 8
    first = next(row for row in rows if row["category"] == ODD[0] and row["metric"] == "image_auroc")
    assert (first["method"], first["seed"]) == ("a_b", "0")
    assert float(first["value"]) == found.methods[0].results[0].classes[ODD[0]]["image_auroc"]
    assert {row["method"] for row in rows} == {"a_b", "'=c", "d"}
    tests = list(csv.DictReader(io.StringIO((folder / "tests.csv").read_text())))
    assert [float(row["holm_p"]) for row in tests] == [one.holm_p for one in found.contrasts]


def test_names_are_escaped_for_latex():
    assert escaped("50%_of & {a}#$") == r"50\%\_of \& \{a\}\#\$"
    assert escaped("a\\b~^é") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}é"
    assert escaped("螺") == r"\textbackslash{}u87ba"


def faults(text: str) -> list[str]:
    """What keeps tables in LaTeX from compiling, as far as a few rules can say."""
    found = []
    plain = re.sub(r"\\label{\w+:\w+}|\\.", "", text.split("\n", 1)[1])
    if plain.count("{") != plain.count("}") or plain.count("$") % 2:
        found.append("unbalanced")
    begun, ended = (re.findall(rf"\\{word}{{(\w+)}}", text) for word in ("begin", "end"))
    found += ["environments"] if sorted(begun) != sorted(ended) else []
    found += [character for character in "_^#~%" if character in plain]
    for columns, body in re.findall(r"\\begin{tabular}{@{}(\w+)@{}}(.*?)\\end{tabular}", text, re.DOTALL):
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        found += [row for row in rows if len(re.findall(r"(?<!\\)&", row)) != len(columns) - 1]
    return found


def test_latex_is_well_formed(folder, found):
    text = (folder / "tables.tex").read_text()
    assert faults(text) == []
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == len(tables(found)) == 11
    assert r"\textbf{" in text
    assert faults(text.replace(r"\_", "_")) == ["_"]
    assert faults(text.replace(r"\bottomrule", r"a & b \\", 1))


@pytest.mark.latex
def test_latex_compiles(folder):
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "document.pdf").stat().st_size > 1000


def test_curves_have_a_line_for_each_seed_and_are_the_same_each_time(folder, found, tmp_path):
    drawn = sorted(path.name for path in folder.glob("*.svg"))
    assert len(drawn) == len(list(folder.glob("curves-*.pdf"))) + len(list(folder.glob("ranks-*.pdf"))) == 3 + 8
    write_comparison(found, tmp_path, figures=True)
    for name in drawn:
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    (svg,) = folder.glob("curves-50*.svg")
    axes = ElementTree.parse(svg).getroot().iter("{http://www.w3.org/2000/svg}g")
    lines = [
        one for one in axes if re.fullmatch(r"line2d_\d+", one.get("id", "")) and len(one) == 1 and one[0].get("d")
    ]
    curves = [one for one in lines if one[0].get("clip-path")]
    # Four runs in two panels, and the line of chance.
    assert len(curves) == 9
