"""Every mutant has its line in the code of today, and one that a test catches is caught."""

from pathlib import Path

import pytest

from tests.campaigns import mutants
from tests.campaigns.mutant_lists import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=[mutant.name.replace(" ", "-") for mutant in MUTANTS])
def test_the_line_is_there(mutant):
    text = mutants.mutated((ROOT / mutant.file).read_text(), mutant)
    compile(text, mutant.file, "exec")
    assert all((ROOT / test.partition("::")[0]).exists() for test in mutant.tests)


def test_a_line_that_has_moved_is_an_error():
    mutant = Mutant("a", "b", "file.py", "x = 1", "x = 2", ())
    for text in ("", "x = 1\nx = 1\n"):
        with pytest.raises(ValueError, match=r"file\.py"):
            mutants.mutated(text, mutant)


@pytest.mark.slow
def test_what_tests_see_is_told_from_what_they_do_not(tmp_path):
    file = tmp_path / "jaxad/half.py"
    file.parent.mkdir()
    (file.parent / "__init__.py").touch()
    file.write_text("def half(x):\n    y = x / 2\n    return y\n")
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'half'\n")
    (tmp_path / "test_half.py").write_text("from jaxad.half import half\n\ndef test_it():\n    assert half(0) == 0\n")
    found = []
    for wrong in ("y = x + 2", "y = x / 3"):
        mutant = Mutant("a", wrong, "jaxad/half.py", "y = x / 2", wrong, ("test_half.py",), before="tests/b.py::c")
        found.append(mutants.caught(mutant, tmp_path))
    assert [outcome.failed for outcome in found] == [("test_half.py::test_it",), ()]
    assert "y = x / 2" in file.read_text()
    assert mutants.tables(found).splitlines()[4:] == [
        "| y = x + 2 | `b.py::c` | `test_half.py::test_it` |",
        "| y = x / 3 | `b.py::c` | **none** |",
    ]
