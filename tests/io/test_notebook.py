"""What a notebook shows, seen by one that keeps it: nothing is run in a kernel."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from jaxad.io import notebook, progress
from jaxad.io.progress import Reporter, counted


class Shown(list):
    """Keeps what is displayed, and what takes its place."""

    def display(self, html, display_id=False):
        self.append(html.data)
        place = len(self) - 1
        return SimpleNamespace(update=lambda html: self.__setitem__(place, html.data)) if display_id else None


@pytest.fixture
def shown(monkeypatch):
    """As if this process were a kernel."""
    kept = Shown()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    ours = SimpleNamespace(HTML=lambda data: SimpleNamespace(data=data), display=kept.display)
    monkeypatch.setitem(sys.modules, "IPython.display", ours)
    return kept


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_notebook_is_known_by_its_kernel(shown, monkeypatch):
    assert notebook.in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not notebook.in_notebook(), "IPython in a terminal"
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not notebook.in_notebook(), "imported, not running"
    monkeypatch.delitem(sys.modules, "IPython")
    assert not notebook.in_notebook()


def test_progress_is_one_line_that_changes_by_time(shown, clock):
    with Reporter().images("judge <b>", 40) as add:
        for number in range(1, 41):
            clock[0] = number / 10
            add(1)
            if number == 4:
                assert shown == []
            if number in (5, 9):
                assert len(shown) == 1
                assert "judge &lt;b&gt; 5/40 images  12%" in shown[0], "not changed before its time"
            if number == 10:
                assert '<progress value="10" max="40">' in shown[0]
    assert len(shown) == 1
    assert "40/40 images 100% in 0:04" in shown[0]


def test_what_is_done_at_once_leaves_nothing_behind(shown, clock):
    with Reporter().images("judge", 2) as add:
        add(2)
    with Reporter(quiet=True).images("judge", 2) as add:
        clock[0] = 9
        add(2)
    assert shown == []


def test_steps_show_their_loss(shown, clock):
    with Reporter().steps("train", 10, 4) as steps:
        clock[0] = 1
        assert steps.due()
        steps(5, 0.25)
        clock[0] = 1.2
        assert not steps.due()
        assert "5/10  50%" in shown[0]
        steps(10, None)
    assert "10/10 100%" in shown[0]


def test_calls_of_the_library_show_progress_in_notebooks_alone(shown, clock, monkeypatch):
    mine = [].append
    with counted("judge", 2, mine) as progress:
        assert progress is mine
    with counted("judge", 2, None) as progress:
        clock[0] = 3
        progress(1)
    assert "1/2 images" in shown[0]
    monkeypatch.delitem(sys.modules, "IPython")
    with counted("judge", 2, None) as progress:
        assert progress is None


def test_html_is_escaped_small_and_needs_no_network():
    table = notebook.table(("<a>", 1), [("x\x1b", "<script>")], "t & t")
    assert "<script>" not in table
    assert "<a>" not in table
    assert "t &amp; t" in table
    assert r"x\x1b" in table
    picture = notebook.figure(np.zeros((900, 1600, 3), np.uint8), "a < b")
    assert len(picture) < 2000
    assert "a &lt; b" in picture
    assert "http" not in table + picture
