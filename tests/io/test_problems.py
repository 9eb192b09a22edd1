"""Collected problems."""

import pytest

from jaxad.errors import DataError, Problem
from jaxad.io.problems import Problems


def test_errors_are_collected_and_raised_as_one():
    problems = Problems()
    problems.stop("nothing is wrong")
    with problems.collected():
        raise DataError("two", [Problem("a", "1.png", "x"), Problem("b", "2.png", "y")])
    with problems.collected("unreadable list", "list.json"):
        raise DataError("no problems of its own")
    problems.add("note", "3.png", "z", fatal=False)
    assert problems[2] == Problem("unreadable list", "list.json", "no problems of its own")
    assert len(problems.fatal) == 3
    with pytest.raises(DataError, match="all of it") as caught:
        problems.stop("all of it")
    assert caught.value.problems == tuple(problems[:3])


def test_other_errors_pass():
    with pytest.raises(ValueError, match="other"), Problems().collected():
        raise ValueError("other")


def test_notes_alone_stop_nothing():
    problems = Problems()
    problems.add("note", "3.png", "z", fatal=False)
    problems.stop("never raised")
    assert len(problems) == 1
