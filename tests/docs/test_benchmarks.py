"""The page of benchmarks says what its files say, digit for digit."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FILES = sorted((DOCS / "benchmarks").glob("*.json"))


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("generate", DOCS / "benchmarks/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_and_readme_are_up_to_date(generator):
    assert generator.PAGE.read_text() == generator.page()
    assert generator.README.read_text() == generator.readme()


def test_every_measurement_has_its_own_place(generator):
    orders = [generator.load(file)["order"] for file in FILES]
    assert len(orders) == len(set(orders)) == len(FILES) > 10


def test_numbers_keep_their_digits(generator):
    content = {"columns": ["part", "score", "error"], "rows": [["gasket", ["100.0", "0.50"], "4.2e-6"]]}
    assert generator.table(content).splitlines()[-1] == "| gasket | 100.0 / 0.50 | 4.2e-6 |"


def test_a_row_of_another_length_is_refused(generator, tmp_path):
    text = (DOCS / "benchmarks/demo.json").read_text()
    short = tmp_path / "short.json"
    short.write_text(text.replace('"columns": ["",', '"columns": ['))
    with pytest.raises(ValueError, match="columns"):
        generator.load(short)


def test_a_missing_field_is_refused(generator, tmp_path):
    text = (DOCS / "benchmarks/demo.json").read_text()
    nameless = tmp_path / "nameless.json"
    nameless.write_text(text.replace('"machine"', '"computer"'))
    with pytest.raises(ValueError, match="machine"):
        generator.load(nameless)
