"""Names in progress and warnings are text and nothing else."""

from __future__ import annotations

import io
import itertools
import os
import re
from contextlib import suppress

import pytest

from jaxad.io.progress import Reporter, duration

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


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still but for what is added to its one element."""
    now = [100.0]
    monkeypatch.setattr("jaxad.io.progress.time.monotonic", lambda: now[0])
    return now


def test_a_line_of_training_fits_80_columns_and_says_it_all(monkeypatch, clock):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Reporter().steps("train", 1_000_000, 0) as progress:
        progress(1, 123.4567)
        clock[0] += 3_600
        progress(10_001, 0.000123456)
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in re.split("[\r\n]", terminal.getvalue())]
    assert max(map(len, lines)) <= 80
    # 990,000 steps at 10,000 an hour.
    assert any("10,001/1,000,000   1% 4d 03:00 left loss 0.0001235" in line for line in lines)


def test_progress_is_shown_by_time_and_never_by_steps(monkeypatch, clock):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    with Reporter().steps("train", 1000, 0) as progress:
        asked = []
        for _ in range(100):
            clock[0] += 0.125
            asked.append(progress.due())
    assert asked == [True, False, False, False] * 25


def test_without_a_terminal_lines_come_at_growing_intervals_and_at_the_end(monkeypatch, clock):
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    began, said = clock[0], {}
    with Reporter().steps("train", 20_000, 0) as progress:
        for step in range(1, 20_001):
            clock[0] += 1
            if progress.due() or step == 20_000:
                before = stream.getvalue().count("\n")
                progress(step, 1 / step)
                if stream.getvalue().count("\n") > before:
                    said[clock[0] - began] = stream.getvalue().splitlines()[-1]
    times = list(said)
    assert times[:7] == [10, 20, 40, 80, 160, 320, 640]
    assert {later - earlier for earlier, later in itertools.pairwise(times[7:-1])} == {600}
    assert times[-1] == 20_000
    assert said[10].split() == ["train", "10/20,000", "0%", "-:--", "left", "loss", "0.1"]
    assert said[160].split() == ["train", "160/20,000", "0%", "5:30:40", "left", "loss", "0.00625"]
    assert said[20_000].split() == ["train", "20,000/20,000", "100%", "in", "5:33:20", "loss", "5e-05"]


def test_long_work_on_images_tells_of_itself_without_a_terminal(monkeypatch, clock):
    monkeypatch.setattr("sys.stderr", stream := io.StringIO())
    with Reporter().images("features", 400) as progress:
        for _ in range(4):
            clock[0] += 9
            progress(100)
    assert [line.split()[:2] for line in stream.getvalue().splitlines()] == [
        ["features", "200/400"],
        ["features", "400/400"],
    ]


def test_nobody_who_is_quiet_looks_at_the_device(clock):
    with Reporter(quiet=True).steps("train", 10, 0) as progress:
        clock[0] += 1000
        assert not progress.due()


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3723, "1:02:03"), (273900, "3d 04:05")]
)
def test_durations_are_read_as_people_write_them(seconds, text):
    assert duration(seconds) == text
