"""A folder into which a line drops images: each is judged once it is complete, and its result added as a line.

    OUT/predictions.jsonl       one line of JSON for each image, with `stamp` (size and date of its file) and `judged`
    OUT/problems.jsonl          the same for images that cannot be used: file, kind, detail
    OUT/model.json              which model judges
    OUT/overlay, map, mask, explained   as `jaxad predict` writes them, under the image's whole name

A line is written when its pictures are, and on the disk before the next image is judged. Who goes on in OUT reads there
what was judged: no file is judged twice unless its size or date changed. Folders are polled, as network drives do not
tell of new files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from jaxad.data.layout import Photos, photos
from jaxad.errors import ConfigError, Problem
from jaxad.inference.answer import Answer
from jaxad.inference.inspector import Inspector
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.signals import held, poll
from jaxad.io.text import name_text
from jaxad.report.prediction_folder import JUDGED, LINES, MODEL, PROBLEMS, STAMP, fitting_name, write_pictures
from jaxad.report.prediction_rows import problem_row

INTERVAL = 0.5
"""Seconds between two looks at the folder; a file that has stayed the same so long, and is not empty, is complete."""
PATIENCE = 10.0
"""Seconds for which a file that cannot be used must stay the same before that is said of it: it may still be coming."""


class WatchedFolder:
    """Judges what comes into a folder.

    Args:
        folder: watched with its subfolders.
        out: of the results; the caller has locked it (`jaxad.io.locks.occupied`).
        inspector: judges.
        save: which pictures to write.
        map_format: of raw maps.
        interval: as `INTERVAL`.
        patience: as `PATIENCE`.
        told: called with what is left out of the folder and why, once for each of its folders and each reason.

    Raises:
        ConfigError: `out` holds other results, or lines that are damaged; or there are no such pictures.
    """

    def __init__(
        self,
        folder: Path,
        out: Path,
        inspector: Inspector,
        *,
        save: Sequence[str] = ("overlay",),
        map_format: Literal["npy", "tiff"] = "npy",
        interval: float = INTERVAL,
        patience: float = PATIENCE,
        told: Callable[[str], object] = lambda text: None,
    ):
        self.folder, self.out, self._inspector = folder, out, inspector
        self._save, self._map_format = save, map_format
        self._explain = inspector.check_words(save, name="save")
        self._interval, self._patience, self._told = interval, patience, told
        self._said: set[tuple[str, Path]] = set()
        # What was said last of a file counts: one that was noted as broken may have been judged since, or the reverse.
        self._done = {file: stamp for _, file, stamp in sorted([*_known(out / LINES), *_known(out / PROBLEMS)])}
        self._seen: dict[Path, tuple[str, float]] = {}
        self._failed: dict[Path, str] = {}
        if inspector.identity:
            write_whole(out / MODEL, f"{json_text(inspector.identity, indent=2)}\n")

    @property
    def judged(self) -> int:
        """Files that were judged, here and before."""
        return len(self._done)

    def results(self) -> Iterator[Answer | Problem]:
        """Watches without end.

        Yields:
            What was written.

        Raises:
            Stopped: a signal asks to end (`jaxad.io.signals`); all that was yielded is on the disk.
            DataError: the folder cannot be listed.
            OSError: the disk is full.
        """
        while True:
            poll()
            begun, found = time.monotonic(), False
            for result in self.look():
                found = True
                yield result
            if not found:
                time.sleep(max(self._interval, 4 * (time.monotonic() - begun)))

    def look(self) -> Iterator[Answer | Problem]:
        """Looks once, and judges what is complete; as `results`."""
        yield from self._judge(self._complete())

    def _complete(self) -> list[Path]:
        """Files that have come, stay the same, and were not judged."""
        now, seen, complete = time.monotonic(), {}, []
        found = photos(self.folder)
        self._tell(found)
        for file in found.files:
            stamp = _stamp(file)
            if not stamp or self._done.get(name_text(file)) == stamp:
                continue
            before, since = self._seen.get(file, ("", now))
            seen[file] = (stamp, since if before == stamp else now)
            needed = self._patience if self._failed.get(file) == stamp else self._interval
            if now - seen[file][1] >= needed:
                complete.append(file)
        self._seen = seen
        self._failed = {file: stamp for file, stamp in self._failed.items() if file in seen}
        return complete

    def _tell(self, found: Photos) -> None:
        """Says what is left out, once."""
        for reason, first in found.reasons():
            if (reason, first.parent) not in self._said:
                self._said.add((reason, first.parent))
                self._told(f"{first.parent}: {reason} (such as {first.name})")

    def _judge(self, files: Sequence[Path]) -> Iterator[Answer | Problem]:
        size = self._inspector.batch_size
        for start in range(0, len(files), size):
            poll()
            chunk = files[start : start + size]
            stamps = [self._seen[file][0] for file in chunk]
            source = self._inspector.source([*chunk], root=self.folder)
            found = self._inspector.outcomes(source, explain=self._explain, workers=None if len(chunk) > 1 else 0)
            for file, stamp, outcome in zip(chunk, stamps, found, strict=True):
                # One that was written to in the meantime, or is gone, is none of ours now.
                if _stamp(file) == stamp:
                    yield from self._write(file, stamp, outcome)

    def _write(self, file: Path, stamp: str, outcome: Answer | tuple[Problem, ...]) -> Iterator[Answer | Problem]:
        when = {STAMP: stamp, JUDGED: datetime.now(UTC).isoformat(timespec="milliseconds")}
        if isinstance(outcome, Answer):
            with held():
                name = "/".join(map(fitting_name, file.relative_to(self.folder).parts))
                write_pictures(self.out, name, outcome, self._save, self._map_format)
                _append(self.out / LINES, [outcome.to_json() | when])
                self._done[name_text(file)] = stamp
            yield outcome
        elif self._failed.get(file) != stamp:
            self._failed[file] = stamp
        else:
            with held():
                _append(self.out / PROBLEMS, [problem_row(problem) | when for problem in outcome])
                self._done[name_text(file)] = stamp
            yield from outcome


def _stamp(file: Path) -> str:
    """Size and date of a file; "" of one that is empty or not there."""
    try:
        status = file.stat()
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}" if status.st_size else ""


def _append(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with file.open("ab") as stream:
        stream.write("".join(f"{json_text(row)}\n" for row in rows).encode())
        stream.flush()
        os.fsync(stream.fileno())


def _known(file: Path) -> Iterator[tuple[str, str, str]]:
    """Time, file and stamp of every line; removes what a power cut left of a last one."""
    if not file.is_file():
        return
    with file.open("rb+") as stream:
        whole = 0
        for number, line in enumerate(stream, 1):
            if not line.endswith(b"\n"):
                stream.truncate(whole)
                return
            whole += len(line)
            try:
                row = json.loads(line)
                yield row[JUDGED], row["file"], row[STAMP]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"out = {file.parent}: line {number} of {file.name} is none of a watched folder; give --watch "
                    "a folder of its own"
                ) from error
