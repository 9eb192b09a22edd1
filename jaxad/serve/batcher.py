"""Images of concurrent requests, judged together in the one shape that is compiled."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxad.data.pixels import pixel_digest
from jaxad.errors import Problem
from jaxad.inference.answer import Answer
from jaxad.inference.inspector import Inspector
from jaxad.types import Record, Sample

Outcome = Answer | tuple[Problem, ...]


class Job(NamedTuple):
    """An image that waits.

    Attributes:
        image: uint8 [h w 3].
        name: what its answer calls it.
        category: what it shows, "" where unknown.
        caption: what a text says of it, "" for none.
        outcome: its answer, or what is wrong with it.
    """

    image: np.ndarray
    name: str
    category: str
    caption: str
    outcome: Future[Outcome]


class Batcher:
    """One thread that judges; while the device works on a batch, the next one gathers.

    Nobody waits for a batch to fill: whatever has come is judged as soon as the device is free.

    Args:
        inspector: judges.
        told: called with the number of images of each batch.
    """

    def __init__(self, inspector: Inspector, told: Callable[[int], object] = lambda images: None):
        self._inspector, self._told = inspector, told
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    def submit(self, image: np.ndarray, name: str, category: str, caption: str = "") -> Future[Outcome]:
        """Has an image uint8 [h w 3] judged; the future raises what the detector raises."""
        job = Job(image, name, category, caption, Future())
        self._jobs.put(job)
        return job.outcome

    @property
    def alive(self) -> bool:
        """Whether it judges."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Judges what was submitted, then ends."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, last = [job], False
            while len(jobs) < self._inspector.batch_size and not last:
                try:
                    further = self._jobs.get_nowait()
                except queue.Empty:
                    break
                last = further is None
                jobs += [] if further is None else [further]
            self._judge(jobs)
            if last:
                return

    def _judge(self, jobs: Sequence[Job]) -> None:
        # A request that was given up waits for nothing.
        jobs = [job for job in jobs if job.outcome.set_running_or_notify_cancel()]
        if not jobs:
            return
        self._told(len(jobs))
        try:
            outcomes = self._inspector.outcomes(_Images(jobs), workers=None if len(jobs) > 1 else 0)
        except Exception as error:
            for job in jobs:
                job.outcome.set_exception(error)
            return
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.outcome.set_result(outcome)


class _Images:
    """The images of jobs (jaxad.types.Source)."""

    name = "requests"

    def __init__(self, jobs: Sequence[Job]):
        self._jobs = jobs
        self.records = [Record(Path(job.name), job.category, identity=job.name, caption=job.caption) for job in jobs]
        self.categories = tuple(dict.fromkeys(job.category for job in jobs))

    def __len__(self) -> int:
        return len(self._jobs)

    def __getitem__(self, index: int) -> Sample:
        return Sample(self._jobs[index].image, self.records[index])

    def mask(self, index: int) -> None:
        return None

    def fingerprint(self, index: int) -> str:
        return self.digest(index).hex()

    def digest(self, index: int) -> bytes:
        return pixel_digest(self._jobs[index].image)
