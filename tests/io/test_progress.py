"""Names in progress and warnings are text and nothing else."""

from __future__ import annotations

import io
import os
from contextlib import suppress

import pytest

from jaxad.io.progress import Reporter

NAME = "[bold]x[/] :bomb: \x1b[31m\x07\udce9"


class Terminal(io.StringIO):
    """A terminal that keeps what it gets."""

    def isatty(self):
        return True


def test_names_are_neither_markup_nor_commands_of_the_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    reporter = Reporter()
    reporter.say(f"said {NAME}")
    reporter.warn([f"warned {NAME}"])
    with reporter.images(NAME, 2) as progress:
        progress(2)
    written = terminal.getvalue()
    assert written.count(r"[bold]x[/] :bomb: \x1b[31m\x07\xe9") >= 3
    assert "\x07" not in written


def test_progress_that_nobody_reads_stops_nothing(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    monkeypatch.setattr("sys.stderr", stream)
    reporter = Reporter()
    reporter.say("x")
    with reporter.images("photos", 2) as progress:
        progress(2)
    reporter.warn(["y"])
    with suppress(BrokenPipeError):
        stream.close()


@pytest.mark.parametrize("columns", ["0", "1", "4", "400"])
def test_bars_end_in_any_width(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Reporter().images("check", 3) as progress:
        progress(3)
    assert len(terminal.getvalue()) < 100_000
