"""Commands of jaxad as child processes: what each cost, kept as a record, so that none is run twice.

Not an experiment itself. Linux only: memory is read from /proc.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jaxad.errors import ConfigError, JaxadError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text

INTERVAL = 0.2
"""Seconds between two looks at a process."""
LOG_END = 2000
"""Characters of a failed command's output that are shown."""
Command = Sequence[str | Path]


class FailedError(JaxadError):
    """A command has failed."""


@dataclass(frozen=True)
class Cost:
    """What a process and its descendants took.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of all processors.
        memory: bytes, most at once of memory that no file backs (RssAnon and RssShmem), of all processes together.
        resident: bytes, most at once of all pages that were in memory (VmHWM), those of mapped files too, which the
            kernel takes back when it needs them; the sum of the processes' own highest.
        watched: bytes of disk that the watched folder took at most; 0 without one.
    """

    seconds: float
    cpu_seconds: float
    memory: int
    resident: int
    watched: int = 0


def measured(command: Command, log: Path, *, watch: Path | None = None, unset: Collection[str] = ()) -> Cost:
    """Runs a command to its end.

    Args:
        command: program and arguments.
        log: file that its output goes to.
        watch: a folder whose size is followed; it need not exist yet.
        unset: variables of the environment that it does not get.

    Raises:
        ConfigError: a system without /proc.
        FailedError: the command fails; shows the end of its output.
    """
    if not Path("/proc/self/status").is_file():
        raise ConfigError("memory is read from /proc/PID/status, which this system does not have; run on Linux")
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    words, environment = list(map(str, command)), {k: v for k, v in os.environ.items() if k not in unset}
    with (
        log.open("wb") as stream,
        subprocess.Popen(words, stdout=stream, stderr=stream, env=environment) as process,
    ):
        watcher = _Watcher(process.pid, watch)
        watcher.start()
        try:
            # Unlike Popen's own, this wait tells what the process and those that it has waited for used.
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.terminate()
            raise
        finally:
            watcher.ended.set()
            watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - began
    if process.returncode:
        end = log.read_text("utf-8", "replace")[-LOG_END:]
        raise FailedError(f"{' '.join(map(str, command))}: failed with {process.returncode}, see {log}:\n{end}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, watcher.memory, watcher.resident, watcher.watched)


class _Watcher(threading.Thread):
    """Looks at a process and its descendants until it is told that they have ended."""

    def __init__(self, pid: int, watch: Path | None):
        super().__init__(daemon=True)
        self._pid, self._watch = pid, watch
        self._highest: dict[int, int] = {}
        self.ended = threading.Event()
        self.memory = self.watched = 0

    @property
    def resident(self) -> int:
        return sum(self._highest.values())

    def run(self) -> None:
        while not self.ended.is_set():
            memory = 0
            for pid in family(self._pid):
                found = _status(pid)
                memory += found.get("RssAnon", 0) + found.get("RssShmem", 0)
                self._highest[pid] = max(self._highest.get(pid, 0), found.get("VmHWM", 0))
            self.memory = max(self.memory, memory)
            if self._watch is not None:
                self.watched = max(self.watched, disk_bytes(self._watch))
            self.ended.wait(INTERVAL)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    # It, or a child, may have ended in the meantime.
    with suppress(OSError):
        for tasks in list(Path(f"/proc/{pid}/task").glob("*/children")):
            with suppress(OSError):
                found += [member for child in tasks.read_text().split() for member in family(int(child))]
    return found


def _status(pid: int) -> dict[str, int]:
    """Bytes by the names of /proc/PID/status; nothing of a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.partition(":")[0]: int(line.split()[1]) << 10 for line in lines if line.endswith(" kB")}


def disk_bytes(folder: Path) -> int:
    """Bytes of disk below a folder; those of files that are not filled yet do not count."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(Path(place, name)).st_blocks * 512
    return total


class Records:
    """Finished commands of a study, each a JSON file; one that is there with the same command is not run again.

    Args:
        folder: of the records.
        unset: variables of the environment that commands do not get.
    """

    def __init__(self, folder: Path, unset: Collection[str] = ()):
        self.folder, self._unset = folder, unset

    def get(self, name: str, words: Command) -> dict[str, Any] | None:
        """The record of a command of jaxad, None if it is not finished, or was finished with other arguments."""
        try:
            record = json.loads((self.folder / f"{name}.json").read_text("utf-8"))
        except FileNotFoundError:
            return None
        return record if record["command"] == list(map(str, words)) else None

    def run(
        self,
        name: str,
        words: Command,
        *,
        made: Path,
        watch: Path | None = None,
        read: Callable[[], dict[str, Any]] = dict,
    ) -> dict[str, Any]:
        """Runs a command of jaxad, or gives its record.

        Args:
            name: of the record.
            words: of the command, after `jaxad`.
            made: the folder that it fills, of which what an interrupted run has left is removed before.
            watch: folder whose size is followed.
            read: what to record besides, asked for once the command has ended.

        Returns:
            `command`, `date`, the fields of `Cost`, `disk` with the bytes of `made` without `watch`, and what was read.
        """
        if (record := self.get(name, words)) is not None:
            return record
        shutil.rmtree(made, ignore_errors=True)
        print(f"{datetime.now(UTC):%H:%M:%S} {name}", flush=True)
        log = self.folder.parent / "logs" / f"{name}.log"
        cost = measured([sys.executable, "-m", "jaxad", *words], log, watch=watch, unset=self._unset)
        record = {
            "command": list(map(str, words)),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            **asdict(cost),
            "disk": disk_bytes(made) - (0 if watch is None else disk_bytes(watch)),
            **read(),
        }
        write_whole(self.folder / f"{name}.json", json_text(record, indent=1) + "\n")
        return record

    def forget(self, name: str) -> None:
        """Removes a record."""
        (self.folder / f"{name}.json").unlink(missing_ok=True)
