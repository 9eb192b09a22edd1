"""Tables that are read by people and by programs."""

import io
import sys

from jaxad.cli._tables import print_table

ROWS = [("a" * 90, "1.5"), ("[bold]b", "22.25")]


def test_without_a_terminal_nothing_is_cut_or_decorated(capsys):
    print_table(("name", "value"), ROWS, numbers=(False, True))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["name", "value"], list(ROWS[0]), list(ROWS[1])]
    assert lines[0].endswith(" value")
    assert len({len(line) for line in lines}) == 1


def test_a_terminal_shows_every_cell_too(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "dumb")
    print_table(("name", "value"), ROWS, numbers=(False, True))
    assert terminal.getvalue().count("a") >= 90
    assert all(len(line) <= 80 for line in terminal.getvalue().splitlines())
