"""What the guides show can be typed: commands are understood, experiments exist, Python is Python."""

from __future__ import annotations

import importlib.util
import json

import pytest

from jaxad import cli
from tests.docs.pages import GUIDES, ROOT, blocks, commands

STRANGERS = {"gaussian", "fine-512", "my_parts"}
"""Names that a guide has its reader register first."""
COMMANDS = [
    pytest.param(words, id=f"{page.stem}: {' '.join(words)}")
    for page in GUIDES
    for words in commands(page, "jaxad")
    # A file of --config is read with the flags; following the guide has it.
    if not STRANGERS & set(words) and "--help" not in words and "--config" not in words
]


@pytest.mark.parametrize("words", COMMANDS)
def test_command_line_is_understood(words):
    cli.parse(words)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_code_is_valid(page):
    for block in blocks(page):
        if block.language == "python":
            compile(block.code, page.name, "exec")
    for module, *_ in commands(page, "python -m"):
        assert importlib.util.find_spec(module), module


def test_every_guide_and_notebook_is_on_the_site():
    site = (ROOT / "mkdocs.yml").read_text()
    pages = [f"guides/{page.name}" for page in GUIDES]
    pages += [f"notebooks/{notebook.stem}.md" for notebook in (ROOT / "docs/notebooks").glob("*.ipynb")]
    assert len(pages) >= 11
    assert not [page for page in pages if page not in site]


def test_notebooks_carry_no_output():
    for notebook in (ROOT / "docs/notebooks").glob("*.ipynb"):
        cells = json.loads(notebook.read_text())["cells"]
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")], notebook.name
