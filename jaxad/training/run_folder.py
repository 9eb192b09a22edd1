"""The folder of a run: whose it is, and how fast the run goes."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from jaxad import parallel
from jaxad.errors import CheckpointError, ConfigError
from jaxad.io.atomic import write_whole
from jaxad.io.locks import LOCK, occupied, require_room
from jaxad.io.threads import map_threads
from jaxad.types import Source


def content_hash(source: Source, annotations: Mapping[str, np.ndarray] | None = None, *, workers: int = 2) -> str:
    """SHA-256 of what a run takes from a source, wherever its files lie: images, their categories and their order.

    Args:
        source: reads every file that has no digest yet.
        annotations: what else the run takes from its records (`jaxad.features.extras_of`), arrays with a row for each.
        workers: threads that read files.
    """
    hasher = hashlib.sha256("\0".join(source.categories).encode())
    digests = map_threads(source.digest, range(len(source)), workers)
    for record, digest in zip(source.records, digests, strict=True):
        hasher.update(f"\n{record.category}\0".encode() + digest)
    for name, array in sorted((annotations or {}).items()):
        hasher.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


def claim(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Writes config.json, or checks that the one there is of the same run.

    Args:
        workdir: the run's folder, made if need be.
        settings: JSON-ready values that a resumed run must share with the one it resumes. Of "data" only "sha256",
            {part: `content_hash`}, has to be the same; all else there says where the images are from.

    Raises:
        CheckpointError: the folder holds another run, all differing settings listed, or something else.
    """
    mine = json.loads(json.dumps(settings))
    file = workdir / "config.json"
    if file.is_file():
        theirs = json.loads(file.read_text())
        recorded = theirs["data"].get("sha256")
        if recorded == mine["data"]["sha256"]:
            theirs["data"] = mine["data"]
        differences = [
            f"{key}: {old!r} there, {new!r} now" for key, old, new in _leaves("", theirs, mine) if old != new
        ]
        if differences:
            listing = "\n".join(f"  {line}" for line in differences)
            raise CheckpointError(f"{workdir} holds another run; use a new workdir, or the same settings:\n{listing}")
        return
    if workdir.exists() and any(path.name != LOCK for path in workdir.iterdir()):
        raise CheckpointError(f"{workdir} is not empty and holds no run of jaxad; use a new workdir")
    parallel.wait_for_others("workdir checked")
    if parallel.is_main_process():
        write_whole(file, json.dumps(mine, indent=2))
    parallel.wait_for_others("workdir claimed")


@contextmanager
def in_use(workdir: Path | str) -> Iterator[None]:
    """Keeps a workdir for this run alone (`jaxad.io.locks.occupied`); the main process does it for all.

    Raises:
        ConfigError: another process uses it, or it cannot be written.
    """
    within = ("features", "checkpoints/*")
    with ExitStack() as stack:
        _by_main(workdir, lambda: stack.enter_context(occupied(workdir, "workdir", within=within)))
        yield


def require_room_for_steps(workdir: Path, size: int, keep: int) -> None:
    """Raises ConfigError where the disk has no room for the checkpoints that are still to be written.

    Args:
        workdir: of the run.
        size: bytes of a checkpoint.
        keep: how many are kept; one more is there while it is written.
    """

    def check() -> None:
        there = sum(file.stat().st_size for file in (workdir / "checkpoints").rglob("*") if file.is_file())
        require_room(workdir, max(size * (keep + 1) - there, size), "workdir")

    _by_main(workdir, check)


def _by_main(workdir: Path | str, check: Callable[[], object]) -> None:
    """Runs what raises ConfigError in the main process; all raise one where it does."""
    refused: ConfigError | None = None
    if parallel.is_main_process():
        try:
            check()
        except ConfigError as error:
            refused = error
    if not parallel.from_main(refused is None):
        raise refused or ConfigError(f"workdir = {workdir}: the main process cannot use it, and says why")


class Speed:
    """Images per second since the first logged step, so that compilation does not count.

    Args:
        step: optimizer steps done at the start.
        images: images of a step.
    """

    def __init__(self, step: int, images: int):
        self._images, self._first, self._time = images, step, None
        self.rate: float | None = None

    def __call__(self, step: int) -> float:
        """The rate after `step` steps, not a number at the first call."""
        now = time.perf_counter()
        if self._time is None:
            self._first, self._time = step, now
            return float("nan")
        self.rate = (step - self._first) * self._images / (now - self._time)
        return self.rate


def _leaves(prefix: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from _leaves(f"{prefix}.{key}".strip("."), old.get(key), new.get(key))
    else:
        yield prefix, old, new
