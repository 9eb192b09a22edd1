"""A function over many items in threads, in order and in flat memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from jaxad.io.signals import poll

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 2
"""Items of each thread that are begun before their turn."""


def cpus() -> int:
    """How many CPUs this process may use, which in containers and under schedulers are fewer than there are."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def map_threads(function: Callable[[T], R], items: Iterable[T], workers: int | None = None) -> Iterator[R]:
    """The results of a function, in the order of the items.

    Args:
        function: safe to call from several threads.
        items: as many as there are; few of them are taken ahead of the results that are asked for.
        workers: threads; None for `cpus()`, and below 1 one is used.

    Raises:
        What the function raises, in the place of its result; `Stopped` where a signal asks to end.
    """
    workers = max(cpus() if workers is None else workers, 1)
    waiting = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        begun: deque[Future[R]] = deque(pool.submit(function, item) for item in islice(waiting, AHEAD * workers))
        try:
            while begun:
                result = begun.popleft().result()
                poll()
                begun.extend(pool.submit(function, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in begun:
                future.cancel()
