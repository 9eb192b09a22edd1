"""What the tests of the command line share: finished runs, and how to read help and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jaxad import cli
from jaxad.testing import make_parts
from tests.cli.shell import BANK, jaxad, toy_flags


@pytest.fixture(scope="session")
def work(tmp_path_factory) -> Path:
    """A folder with `my parts`, runs of two detectors on them, a report that compares the two; to be left as it is."""
    root = tmp_path_factory.mktemp("work")
    data = f"folder:{make_parts(root / 'my parts', size=70)}"
    jaxad("fit", "dpdiff", "--data", data, "--workdir", root / "my run", *toy_flags())
    jaxad("fit", "patch-bank", "--data", data, "--workdir", root / "bank", *BANK, "--model.per-category")
    to_compare = ("--baseline", root / "bank", "--out", root / "report")
    jaxad("evaluate", "--checkpoint", root / "my run", "--data", data, *to_compare)
    return root


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def refused(capsys) -> Callable[..., str]:
    """What is said about words that do not fit, in one line."""

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.parse(list(words))
        assert stop.value.code == 2
        return " ".join(capsys.readouterr().err.replace("│", " ").split())

    return said


@pytest.fixture
def shown(capsys) -> Callable[..., str]:
    """What is printed for words that ask for something to read."""

    def said(*words: str) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.parse(list(words))
        assert stop.value.code == 0
        return capsys.readouterr().out

    return said
