"""Names of every kind through all commands: they can be printed and written, and none is taken for another."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from jaxad.errors import ConfigError, DataError
from jaxad.io.text import file_name, name_text
from jaxad.testing import make_parts
from tests.cli.shell import BANK, jaxad

pytestmark = pytest.mark.skipif(os.name != "posix" or os.uname().sysname != "Linux", reason="names of files are bytes")

RESERVED = ("all", "mean", "baseline mean", "None", "__proto__", "image_auroc", "items", "(pooled)", "all together")
BACKSLASHED = r"gef\xe4\xdf"
FOREIGN = (
    "gef\udce4\udcdf",
    "x\x1b[31m\x07",
    "new\nline",
    "a\u202egnp",
    "瓶子",
    "[bold]x[-]",
    "<b>&\"'",
    r"gef\xe4\xdf",
)
NAMES = (*RESERVED, *FOREIGN)
TEXTS = tuple(sorted(map(name_text, NAMES)))


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    """A folder with `parts` of all these names, files among them whose names are no UTF-8, and a `bank` of them."""
    root = tmp_path_factory.mktemp("nasty")
    make_parts(root / "parts", tuple(map(str, range(len(NAMES)))), train=2, test=1)
    for number, name in enumerate(NAMES):
        category = root / "parts" / str(number)
        for image, ending in ((category / "test/blot/000.png", ".png"), (category / "test/good/000.png", ".png")):
            image.rename(image.with_name(f"caf\udce9\r\x1b{ending}"))
        mask = category / "ground_truth/blot/000_mask.png"
        mask.rename(mask.with_name("caf\udce9\r\x1b_mask.png"))
        category.rename(root / "parts" / name)
    data = ("--data", f"folder:{root}/parts")
    jaxad("fit", "patch-bank", *data, "--workdir", root / "bank", *BANK, "--model.per-category", "--model.bank-size", 9)
    return root


def is_harmless(text: str) -> bool:
    return all(line.isprintable() for line in text.splitlines()) and text.encode().decode() == text


def test_what_is_printed_is_text(nasty, capsys):
    jaxad("check", "--data", f"folder:{nasty}/parts", "--out", nasty / "check.json")
    table = capsys.readouterr().out
    assert is_harmless(table)
    assert [line[:20].rstrip() for line in table.splitlines()[1 : len(NAMES) + 1]] == [text[:20] for text in TEXTS]
    assert table.splitlines()[len(NAMES) + 1].split()[:2] == ["(all)", str(2 * len(NAMES))]
    assert tuple(json.loads((nasty / "check.json").read_text())["counts"]) == TEXTS


def test_no_name_is_taken_for_a_word_of_a_report(nasty, capsys):
    to_compare = ("--baseline", nasty / "bank", "--out", nasty / "report")
    jaxad("evaluate", "--checkpoint", nasty / "bank", "--data", f"folder:{nasty}/parts", *to_compare)
    said = capsys.readouterr()
    assert is_harmless(said.out)
    assert is_harmless(said.err)
    heads = ("mean ", "(mean) ", "baseline mean ", "(baseline mean) ")
    assert [sum(line.startswith(head) for line in said.out.splitlines()) for head in heads] == [2, 1, 2, 1]
    report = json.loads((nasty / "report/report.json").read_bytes().decode())
    assert tuple(sorted(report["classes"])) == TEXTS
    assert len(report["config"]["threshold"]["limits"]) == len(NAMES) + 1
    assert is_harmless((nasty / "report/report.html").read_bytes().decode())


def test_predictions_name_files_so_that_they_are_found(nasty, capsys):
    images = nasty / "parts"
    pictures = ("--save", "overlay", "map", "mask")
    jaxad(
        "predict", images, "--checkpoint", nasty / "bank", "--out", nasty / "out", "--category", FOREIGN[0], *pictures
    )
    lines = [json.loads(line) for line in (nasty / "out/predictions.jsonl").read_bytes().decode().splitlines()]
    assert {line["category"] for line in lines} == {name_text(FOREIGN[0])}
    assert all(is_harmless(line["file"]) and Path(file_name(line["file"])).is_file() for line in lines)
    for kind in ("overlay", "map", "mask"):
        names = [file.relative_to(nasty).as_posix() for file in (nasty / "out" / kind).rglob("*") if file.is_file()]
        assert len(names) == len(lines)
        assert all(map(is_harmless, names))


@pytest.mark.parametrize(
    "name", ["None", "all", "gef\udce4\udcdf", name_text("gef\udce4\udcdf"), name_text(r"gef\xe4\xdf")]
)
def test_a_category_is_chosen_by_its_name_or_what_was_shown(nasty, capsys, name):
    jaxad("check", "--data", f"folder:{nasty}/parts", "--categories", name)
    lines = capsys.readouterr().out.splitlines()
    shown = name_text(name) if "\udce4" in name else name
    assert [line.split()[0] for line in lines[1:3]] == [shown, "(all)" if name == "all" else "all"]


def test_prepared_categories_have_places_of_their_own(nasty, capsys):
    where = ("--data-dir", nasty / "prepared")
    jaxad("prepare", "anomaly_folder", "--source", nasty / "parts", *where, "--partial")
    assert is_harmless(capsys.readouterr().out)
    for categories in ((), ("--categories", "all", "瓶子", "None")):
        jaxad("check", "--data", "anomaly_folder", *where, *categories)
        table = capsys.readouterr().out.splitlines()
        assert table[len(categories[1:] or NAMES) + 1].split()[0] == "(all)"
    for all_of_them in ("anomaly_folder", "anomaly_folder/all"):
        jaxad("check", "--data", all_of_them, *where)
        assert name_text(FOREIGN[0]) in capsys.readouterr().out


def test_a_problem_has_one_line_whatever_its_file_is_called(nasty, capsys, tmp_path):
    shutil.copytree(nasty / "parts" / "new\nline", tmp_path / "parts/new\nline")
    (tmp_path / "parts/new\nline/test/blot/caf\udce9\r\x1b.png").write_bytes(b"no image")
    with pytest.raises(DataError):
        jaxad("check", "--data", f"folder:{tmp_path}/parts")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]
    assert r"new\x0aline/test/blot/caf\xe9\x0d\x1b.png: " in line


def test_settings_hold_paths_that_are_no_text(nasty, tmp_path):
    data = tmp_path / "teile\udce9"
    make_parts(data, ("one",), train=3, test=1)
    jaxad("fit", "patch-bank", "--data", f"folder:{data}", "--workdir", tmp_path / "run", *BANK)
    jaxad("evaluate", "--checkpoint", tmp_path / "run", "--data", f"folder:{data}", "--out", tmp_path / "r\udce9")
    json.loads((tmp_path / "r\udce9/report.json").read_bytes().decode("ascii"))
    with pytest.raises(ConfigError, match=r"--workdir .*lauf\\xe9"):
        jaxad("fit", "patch-bank", "--data", f"folder:{data}", "--workdir", tmp_path / "lauf\udce9", *BANK)
