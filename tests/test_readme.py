"""The README fits a page, and every command line and every path that it shows exists."""

from __future__ import annotations

import re

import pytest

from jaxad import cli
from tests.docs.pages import README, blocks, commands

TEXT = README.read_text()
COMMANDS = list(commands(README, "jaxad"))


def test_readme_is_short():
    assert len(TEXT.splitlines()) <= 150


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_command_line_is_understood(words):
    cli.parse(words)


def test_readme_shows_every_command():
    shown = {words[0] for words in COMMANDS} | set(re.findall(r"`jaxad ([a-z]+)", TEXT))
    assert {"demo", "fit", "evaluate", "predict", "prepare", "check", "models", "convert", "caption", "bench"} <= shown


def test_installation_and_tests_are_one_line_each():
    lines = [line for block in blocks(README) for line in block.code.splitlines() if line.startswith("pip")]
    assert lines == ["pip install -e '.[demo]' && jaxad demo --out demo", "pip install -e '.[test]' && pytest"]


def test_python_is_python():
    assert [compile(block.code, "README.md", "exec") for block in blocks(README) if block.language == "python"]


def test_files_named_exist():
    named = set(re.findall(r"\]\((?!http)([^)#]+)", TEXT)) | set(re.findall(r"`(experiments/[\w/]+\.py)`", TEXT))
    assert "docs/images/overlay.jpg" in named
    assert not [path for path in named if not (README.parent / path).exists()]
