"""Damages small sound files of every format that jaxad reads, reads them, and tells what came of it.

    python -m tests.campaigns.fuzz --files 100000 --seed 0

Every reader may accept a file or refuse it with a JaxadError. Anything else raised, a process that dies, a file that
takes longer than `--seconds` of processor time (or six times that by the clock), and more than `--mebibytes` of memory
beyond those before, are faults: they are listed with the number by which `--only READER --first NUMBER --files 1` makes
the same file again, and the command exits 1. One worker process reads at a time, and is replaced when it dies or hangs.
"""

from __future__ import annotations

import argparse
import collections
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxad.errors import JaxadError
from tests.campaigns.mutations import mutate
from tests.campaigns.readers import READERS, Reader

ADDRESS_SPACE = 4 << 30
"""Bytes that a worker may map beyond those it has mapped at its start, so that a fault does not stop the machine."""


class Target:
    """A reader and its sound files, in a folder of its own."""

    def __init__(self, reader: Reader, folder: Path):
        folder.mkdir(parents=True)
        self.reader = reader
        self.sound = {file: file.read_bytes() for file in reader.seeds(folder)}

    def attempt(self, number: int, seed: int = 0) -> tuple[str, str]:
        """Damages a file in the way of that number and reads it.

        Returns:
            "accepted", "refused" or "foreign", and of the last where it was raised.
        """
        dice = random.Random(f"{seed} {self.reader.name} {number}")
        file = dice.choice(list(self.sound))
        file.write_bytes(mutate(self.sound[file], dice))
        try:
            self.reader.read(file)
            return "accepted", ""
        except JaxadError:
            return "refused", ""
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            return (
                "foreign",
                f"{file.name}: {type(error).__name__}: {str(error)[:200]} in {place.name}, {place.filename}",
            )
        finally:
            file.write_bytes(self.sound[file])


@dataclass
class Tally:
    """What came of the files of one reader."""

    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    slowest: float = 0.0
    mebibytes: int = 0
    faults: list[str] = field(default_factory=list)


class Outcome(NamedTuple):
    """What came of one file: a word, what was wrong, MiB beyond those at the worker's start, processor seconds."""

    word: str
    said: str
    mebibytes: int
    seconds: float


class Worker:
    """A process that reads damaged files."""

    def __init__(self, seed: int):
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, seed), daemon=True)
        self._process.start()
        theirs.close()
        # Sound files are made, and libraries imported, before the clock runs.
        self._pipe.recv()

    def read(self, reader: int, number: int, seconds: float) -> Outcome:
        """What comes of one file; "hang" and "crash" end the worker."""
        self._pipe.send((reader, number))
        begun, used = time.monotonic(), self._processor_time()
        while not self._pipe.poll(min(seconds, 1.0)):
            if self._processor_time() - used > seconds or time.monotonic() - begun > 6 * seconds:
                self._process.kill()
                return Outcome("hang", f"more than {seconds} s", 0, seconds)
        try:
            return Outcome(*self._pipe.recv())
        except EOFError:
            self._process.join()
            return Outcome("crash", f"the process ended with {self._process.exitcode}", 0, 0.0)

    def _processor_time(self) -> float:
        """Seconds that all threads of the process have had."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self._process.kill()
        self._process.join()


def _work(pipe: Any, seed: int) -> None:
    warnings.simplefilter("ignore")
    # Decoders tell of damage on their own.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    with tempfile.TemporaryDirectory() as folder:
        targets = [Target(reader, Path(folder) / str(place)) for place, reader in enumerate(READERS)]
        for target in targets:
            for number in range(3):
                target.attempt(-1 - number)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ADDRESS_SPACE,) * 2)
        start = _peak()
        pipe.send("ready")
        while True:
            reader, number = pipe.recv()
            begun = time.process_time()
            word, said = targets[reader].attempt(number, seed)
            pipe.send((word, said, _peak() - start, time.process_time() - begun))


def _peak() -> int:
    """Most MiB that the process has had in memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def numbers(files: int, only: str, first: int) -> Iterator[tuple[int, int]]:
    """Readers by turns, each as often as its share says, and the number of the file."""
    chosen = [place for place, reader in enumerate(READERS) if only in reader.name]
    turns = [place for place in chosen for _ in range(READERS[place].share)]
    random.Random(0).shuffle(turns)
    counts: collections.Counter[int] = collections.Counter()
    for number in range(files):
        place = turns[number % len(turns)]
        yield place, first + counts[place]
        counts[place] += 1


def campaign(
    files: int, seed: int, *, seconds: float, mebibytes: int, only: str = "", first: int = 0, hours: float = 24
) -> dict[str, Tally]:
    """Runs a campaign; see the head of this module."""
    tallies = {reader.name: Tally() for reader in READERS if only in reader.name}
    worker, highest, end = None, 0, time.monotonic() + 3600 * hours
    for done, (place, number) in enumerate(numbers(files, only, first), 1):
        if time.monotonic() > end:
            break
        worker = worker or Worker(seed)
        tally = tallies[READERS[place].name]
        word, said, peak, used = worker.read(place, number, seconds)
        tally.outcomes[word] += 1
        tally.slowest = max(tally.slowest, used)
        if peak > highest:
            highest, tally.mebibytes = peak, max(tally.mebibytes, peak)
        if peak > mebibytes:
            word, said = "memory", f"{peak} MiB"
        if word not in ("accepted", "refused"):
            tally.faults.append(f"{READERS[place].name}, number {number}: {word}: {said}")
            print(tally.faults[-1], file=sys.stderr, flush=True)
        if word in ("hang", "crash", "memory"):
            worker.end()
            worker, highest = None, 0
        if done % 5000 == 0:
            print(f"{done} files", file=sys.stderr, flush=True)
    if worker:
        worker.end()
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """The outcomes as Markdown."""
    head = "| files of | tried | accepted | refused | foreign | crashes | hangs | slowest, s | memory, MiB |"
    rows = [head, "|---|" + "---:|" * 8]
    for name, tally in tallies.items():
        kinds = [tally.outcomes[kind] for kind in ("accepted", "refused", "foreign", "crash", "hang")]
        counts = " | ".join(f"{count:,}" for count in (sum(kinds), *kinds))
        rows.append(f"| {name} | {counts} | {tally.slowest:.2f} | {tally.mebibytes or ''} |")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=10.0, help="longest processor time for one file")
    parser.add_argument("--mebibytes", type=int, default=1024, help="most memory beyond that before the first file")
    parser.add_argument("--hours", type=float, default=24.0, help="ends earlier, with what was tried by then")
    parser.add_argument("--only", default="", help="readers with this in their name")
    parser.add_argument("--first", type=int, default=0, help="number of each reader's first file")
    arguments = vars(parser.parse_args())
    begun = time.monotonic()
    tallies = campaign(arguments.pop("files"), arguments.pop("seed"), **arguments)
    tried = sum(sum(tally.outcomes.values()) for tally in tallies.values())
    print(table(tallies))
    print(json.dumps({"files": tried, "minutes": round((time.monotonic() - begun) / 60, 1)}))
    return int(any(tally.faults for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
