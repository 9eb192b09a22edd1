"""`jaxad check`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import pytest

from jaxad.errors import ConfigError, DataError
from jaxad.testing import make_parts
from tests.cli.shell import failure, jaxad


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("shop") / "my parts")


def test_check_of_good_data(folder, capsys):
    jaxad("check", "--data", f"folder:{folder}", "--categories", "tile")
    printed = capsys.readouterr().out
    assert printed.splitlines()[1].split() == ["tile", "12", "0", "4", "4", "4"]
    assert printed.endswith("nothing that would stop a run\n")


def test_check_refuses(folder, capsys):
    assert "no such folder" in failure(capsys, "check", "--data", f"folder:{folder}/missing")
    assert "no data set 'mvtec'" in failure(capsys, "check", "--data", "mvtec")
    assert "no category screw" in failure(capsys, "check", "--data", f"folder:{folder}", "--categories", "screw")


def test_errors_are_of_the_documented_classes(folder):
    with pytest.raises(DataError):
        jaxad("check", "--data", f"folder:{folder}/missing")
    with pytest.raises(ConfigError):
        jaxad("check", "--data", f"folder:{folder}", "--workers", 0)
