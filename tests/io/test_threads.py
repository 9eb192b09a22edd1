"""The ordered map in threads."""

import threading
from itertools import count, islice

import pytest

from jaxad.io.threads import AHEAD, map_threads


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_results_come_in_order(workers):
    first = threading.Event()

    def slow(number: int) -> int:
        # With several threads, the first item ends after the second.
        if number == 0 and workers > 1:
            assert first.wait(timeout=30)
        elif number == 1:
            first.set()
        return number * number

    assert list(map_threads(slow, range(20), workers)) == [number * number for number in range(20)]


def test_every_cpu_that_may_be_used_has_a_thread(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 3, 4}, raising=False)
    numbers = count()
    results = map_threads(lambda number: number, numbers)
    next(results)
    assert next(numbers) == AHEAD * 3 + 1
    results.close()  # type: ignore[attr-defined]


def test_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    results = map_threads(lambda number: number, items(), 3)
    assert list(islice(results, 5)) == [0, 1, 2, 3, 4]
    assert len(taken) <= 5 + AHEAD * 3
    results.close()  # type: ignore[attr-defined]


def test_errors_come_in_their_place():
    results = map_threads(lambda number: 1 // (number - 2), range(5), 2)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_nothing_to_do():
    assert list(map_threads(lambda item: item, [], 2)) == []
