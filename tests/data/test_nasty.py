"""`jaxad check` of nasty folders: the counts are right, or it refuses with the reason."""

from __future__ import annotations

import json

import pytest

from jaxad.errors import DataError
from tests.cli.shell import jaxad
from tests.data.nasty import FOLDERS, PARTS, Maker
from tests.data.nasty.__main__ import PAGE, page


@pytest.mark.parametrize("nasty", FOLDERS, ids=lambda nasty: nasty.title[:60])
def test_counts_are_right_or_the_folder_is_refused(nasty, tmp_path, capsys):
    root, out = tmp_path / "parts", tmp_path / "check.json"
    root.mkdir()
    nasty.make(Maker(root))
    words = ("check", *nasty.words(root), "--out", out)
    if nasty.refused:
        with pytest.raises(DataError) as refusal:
            jaxad(*words)
        said = capsys.readouterr().out + str(refusal.value)
        assert all(word in said for word in nasty.refused), said
        return
    jaxad(*words)
    found = json.loads(out.read_text())
    counts = {name: tuple(numbers[part] for part in PARTS) for name, numbers in found["counts"].items()}
    assert counts == nasty.counts
    assert {problem["kind"] for problem in found["problems"]} == set(nasty.notes)


def test_sixty_folders_and_each_another():
    assert len({nasty.title for nasty in FOLDERS}) == len(FOLDERS) >= 60


def test_the_page_lists_them_all():
    assert PAGE.read_text() == page(), "run python -m tests.data.nasty"
