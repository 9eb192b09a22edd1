"""Kills commands at random moments, runs them again, and compares with undisturbed ones.

    python -m tests.campaigns.kills --kills 200 --seed 0

Every command is a process of its own, on made-up parts with untrained networks. A try kills the same command three
to eight times, by SIGKILL, SIGTERM or Ctrl-C, at a moment drawn evenly from the time that an undisturbed one takes, and
then lets it finish. What it leaves must be what the undisturbed one left, byte for byte (`tests.campaigns.results` says
which bytes are times), and nothing else. Prints a Markdown table; exit status 1 where anything was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaigns import results

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
STATUS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
MODEL = "--preset small --model.backbone random:32x2 --image-size 56 --false-alarm 0.2"
TRAIN = "--train.batch-size 4 --train.log-every 1 --train.steps 8 --train.checkpoint-every 3"
LIMIT = 900
"""Seconds after which a command hangs."""


@dataclass(frozen=True)
class Case:
    """A command to kill.

    Attributes:
        words: behind `jaxad`; OUT stands for what it writes, DATA for the parts, BANK for a fitted patch bank.
        compare: what a folder holds, by name.
        weight: how often it is tried.
    """

    words: str
    compare: Callable[[Path], dict[str, bytes]]
    weight: int


CASES = {
    "fit dpdiff": Case(f"fit dpdiff --data folder:DATA --workdir OUT {MODEL} --model.depth 1 {TRAIN}", results.run, 3),
    "fit vlmdiff": Case(
        "fit vlmdiff --data folder:DATA --workdir OUT --preset small --model.stable-diffusion random:8 "
        "--model.tokenizer TOKENIZER --model.backbone random:32x2x8 --image-size 32 --model.sampling-steps 1 "
        "--train.steps 3 --train.batch-size 2 --train.checkpoint-every 1 --train.log-every 1 --holdout 0",
        results.run,
        1,
    ),
    "fit clipfusion": Case(
        "fit clipfusion --data folder:DATA --workdir OUT --preset patchclip --model.clip random:8 "
        "--model.output-size 40 --false-alarm 0.2 --shots 2",
        results.run,
        4,
    ),
    "fit patch-bank": Case(f"fit patch-bank --data folder:DATA --workdir OUT {MODEL}", results.run, 4),
    "evaluate": Case("evaluate --checkpoint BANK --data folder:DATA --out OUT", results.report, 4),
    "predict": Case(
        "predict DATA/disc/test --checkpoint BANK --out OUT --category disc --batch-size 1 --save overlay map mask",
        results.files,
        4,
    ),
    "prepare": Case("prepare anomaly_folder --source DATA --data-dir OUT --partial --size 32", results.prepared, 4),
}


@dataclass
class Tally:
    """What happened to one command.

    Attributes:
        kills: by signal.
        early: kills before jaxad listens or after it has ended: the system's own status.
        ended: commands that were done before their kill.
        finished: commands that were run to their end after kills.
        equal: those of them with the results of an undisturbed one.
        wrong: all that is not as it must be.
    """

    kills: Counter[signal.Signals] = field(default_factory=Counter)
    early: int = 0
    ended: int = 0
    finished: int = 0
    equal: int = 0
    wrong: list[str] = field(default_factory=list)


class Campaign:
    """Commands, killed and run again, in a folder."""

    def __init__(self, folder: Path):
        from jaxad.testing import make_parts
        from tests.models.clip.vocabulary import write_tokenizer

        self._folder = folder
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # What starts the campaign may have told its children to ignore Ctrl-C, and they theirs.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        make_parts(folder / "parts")
        write_tokenizer(folder / "tokenizer")
        self._undisturbed: dict[str, tuple[float, dict[str, bytes]]] = {}
        self._finish("fit patch-bank", folder / "bank")

    def undisturbed(self, name: str) -> tuple[float, dict[str, bytes]]:
        """Seconds that a command takes, and what it leaves."""
        if name not in self._undisturbed:
            out = self._folder / "undisturbed" / name.replace(" ", "-")
            # Once for the cache of compiled programs.
            for _ in range(2):
                shutil.rmtree(out, ignore_errors=True)
                began = time.monotonic()
                self._finish(name, out)
                seconds = time.monotonic() - began
            self._undisturbed[name] = seconds, CASES[name].compare(out)
        return self._undisturbed[name]

    def attempt(self, name: str, draw: random.Random, tally: Tally) -> None:
        """Kills one command three to eight times, and lets it finish."""
        seconds, expected = self.undisturbed(name)
        place = Path(tempfile.mkdtemp(dir=self._folder, prefix="try-"))
        out, temporary = place / "out", place / "tmp"
        temporary.mkdir()
        history = []
        for _ in range(draw.randint(3, 8)):
            number, moment = draw.choice(SIGNALS), draw.uniform(0, seconds)
            history.append(f"{number.name} after {moment:.2f} s")
            status, errors = self._kill(name, out, temporary, number, moment)
            tally.kills[number] += status != 0
            if status == 0:
                tally.ended += 1
            elif status == -number != STATUS[number]:
                tally.early += 1
            elif status != STATUS[number]:
                tally.wrong.append(f"{name}: status {status} after {history}: {errors[-300:]}")
            elif "Traceback" in errors:
                tally.wrong.append(f"{name}: a traceback after {history}: {errors[-300:]}")
        try:
            self._finish(name, out, temporary)
            tally.finished += 1
            found = CASES[name].compare(out)
            left = results.left_behind(out) + [path.name for path in temporary.iterdir()]
            differing = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
            tally.equal += not differing
            if differing or left:
                tally.wrong.append(f"{name}: {differing} differ, {left} left behind after {history} ({place})")
            else:
                shutil.rmtree(place)
        except AssertionError as error:
            tally.wrong.append(f"{name}: does not finish after {history} ({place}): {error}")

    def _kill(self, name: str, out: Path, temporary: Path, number: signal.Signals, moment: float) -> tuple[int, str]:
        with self._start(name, out, temporary) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moment)
            process.send_signal(number)
            _, errors = process.communicate(timeout=LIMIT)
        return process.returncode, errors

    def _finish(self, name: str, out: Path, temporary: Path | None = None) -> None:
        with self._start(name, out, temporary) as process:
            _, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, errors[-2000:]

    def _start(self, name: str, out: Path, temporary: Path | None) -> subprocess.Popen[str]:
        places = {"OUT": out, "DATA": self._folder / "parts", "BANK": self._folder / "bank"}
        words = CASES[name].words.replace("TOKENIZER", str(self._folder / "tokenizer"))
        for word, place in places.items():
            words = words.replace(word, str(place))
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(self._folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.02",
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "HF_HUB_OFFLINE": "1",
            "TMPDIR": str(temporary or self._folder),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "jaxad", *words.split()],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def table(tallies: dict[str, Tally]) -> str:
    """The outcome in Markdown."""
    heads = ["command", *(number.name for number in SIGNALS), "too early or late", "done before", "finished", "equal"]
    rows = [heads, ["---"] * len(heads)]
    total = Tally()
    for name, tally in tallies.items():
        rows.append(_row(name, tally))
        total.kills.update(tally.kills)
        for number in ("early", "ended", "finished", "equal"):
            setattr(total, number, getattr(total, number) + getattr(tally, number))
    rows.append(_row("all", total))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(name: str, tally: Tally) -> list[str]:
    numbers = (*(tally.kills[number] for number in SIGNALS), tally.early, tally.ended, tally.finished, tally.equal)
    return [name, *map(str, numbers)]


def campaign(
    folder: Path, kills: int, seed: int, names: tuple[str, ...] = tuple(CASES), minutes: float = math.inf
) -> dict[str, Tally]:
    """So many kills, spread over the commands; fewer where the minutes are over."""
    began = time.monotonic()
    run, draw = Campaign(folder), random.Random(seed)
    tallies = {name: Tally() for name in names}
    done = 0
    while done < kills and time.monotonic() - began < 60 * minutes:
        name = draw.choices(names, [CASES[name].weight for name in names])[0]
        before = len(tallies[name].wrong)
        run.attempt(name, draw, tallies[name])
        done = sum(tally.kills.total() for tally in tallies.values())
        wrong = sum(len(tally.wrong) for tally in tallies.values())
        print(f"{time.strftime('%H:%M:%S')} {done} kills, {wrong} wrong, after {name}", file=sys.stderr, flush=True)
        for line in tallies[name].wrong[before:]:
            print(f"  {line}", file=sys.stderr, flush=True)
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many")
    parser.add_argument("--commands", nargs="*", choices=CASES, default=list(CASES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        tallies = campaign(Path(folder), given.kills, given.seed, tuple(given.commands), given.minutes)
    print(table(tallies))
    wrong = [line for tally in tallies.values() for line in tally.wrong]
    print("\n".join(["", *wrong]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
