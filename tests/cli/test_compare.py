"""`jaxad compare`: what it prints fits 80 columns, what it writes, and what it refuses."""

from __future__ import annotations

import pytest

from jaxad.cli.compare import CLIPPED
from tests.cli.shell import failure, jaxad
from tests.report.comparison.made_reports import write_made

LONG = "a-detector-with-a-very-long-name"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, skill in (("strong", 2.0), ("weak", 0.8), (LONG, 0.4)):
        for seed in (0, 1) if name == "strong" else (0,):
            write_made(root / name / f"seed-{seed}", skill, seed=seed, system=name[:6])
    return root


def test_everything_fits_eighty_columns(runs, capsys):
    jaxad("compare", *(runs / name for name in ("strong", "weak", LONG)), "--resamples", 100)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "strong: strong, seeds 0 1"
    heads = next(line for line in lines if line.startswith("method"))
    # All eight metrics stand in one row.
    assert heads.split() == ["method", "I-AUROC", "I-AP", "I-F1max", "P-AUROC", "P-AP", "P-F1max", "AUPRO", "mAD"]
    assert sum(line.startswith("  deviation") for line in lines) == 1
    assert {"bottle", "screw"} <= {line.split()[0] for line in lines if line.strip()}
    assert "note: weak: no seed 1; its numbers are of 1 alone" in lines


def test_more_methods_than_fit_stand_below_each_other(runs, capsys):
    names = [f"{number}-{LONG}" for number in range(4)]
    jaxad("compare", runs, "--resamples", 100, "--metrics", "image_ap", "--names", *names[:3], "--reference", names[1])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("…")
    assert not [word for word in out.split() if "…" in word and len(word.strip("*:;,")) > CLIPPED[0]]
    # Of one metric each category is tested.
    assert sum(line.split()[1:2] == ["bottle"] for line in out.splitlines()) == 2


def test_files_are_written_and_figures_where_asked(runs, tmp_path, capsys):
    jaxad("compare", runs, "--resamples", 100, "--metrics", "image_auroc", "--out", tmp_path / "c", "--curves")
    said = capsys.readouterr().out
    assert f"see {tmp_path / 'c' / 'compare.md'}\nbeside it compare.json" in said
    assert "6 figures" in " ".join(said.split())
    written = {path.name for path in (tmp_path / "c").iterdir()}
    tables = {"compare.json", "compare.md", "results.csv", "tests.csv", "tables.tex", "document.tex"}
    curves = {
        f"{name}.{kind}" for name in ("curves-bottle", "curves-screw", "ranks-image_auroc") for kind in ("svg", "pdf")
    }
    assert written == tables | curves


def test_what_cannot_be_is_refused_with_its_flag(runs, tmp_path, capsys):
    said = failure(capsys, "compare", "--seed", -1, "--curves")
    assert "--seed -1" in said
    assert "--curves: needs a folder" in said
    assert "none given" in said
    assert "--resamples 5" in failure(capsys, "compare", runs, "--resamples", 5)
    assert "--reference best: no such method" in failure(capsys, "compare", runs, "--reference", "best")
    assert "--names one: 1 names" in failure(capsys, "compare", runs, "--names", "one")
