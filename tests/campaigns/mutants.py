"""Does a test fail where the method is wrong? `python -m tests.campaigns.mutants [--only NAME...]`.

Every mutant is one wrong line in a copy of the tree; the tests that are to catch it run there, slow ones left out.
Prints a table for each part, which docs/reliability/mutants.md keeps; exits with 1 where a mutant lives. A mutant whose
line is not found is an error: the line has moved, and the list must follow it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.campaigns.mutant_lists import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
MARKS = "not slow and not real and not topology and not beam and not browser and not latex"
"""The default tests, and those of the files named that compare with torch."""
TREE = ("jaxad", "tests", "experiments", "tfds_builders", "docs", "pyproject.toml", "README.md")


class Outcome(NamedTuple):
    """What came of a mutant: the tests that failed, as pytest names them."""

    mutant: Mutant
    failed: tuple[str, ...]


def mutated(text: str, mutant: Mutant) -> str:
    """The content of a file with the wrong line.

    Raises:
        ValueError: the line is not there, or is there more than once.
    """
    if text.count(mutant.right) != 1:
        raise ValueError(f"{mutant.name}: {mutant.file} has {text.count(mutant.right)} times: {mutant.right}")
    return text.replace(mutant.right, mutant.wrong)


def caught(mutant: Mutant, tree: Path) -> Outcome:
    """Runs the tests of a mutant in a copy of the tree, and leaves the copy as it was."""
    file = tree / mutant.file
    text = file.read_text()
    file.write_text(mutated(text, mutant))
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    options = ["-n", "0", "-q", "-x", "-m", MARKS, "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, *mutant.tests]
    try:
        run = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    finally:
        file.write_text(text)
    if run.returncode not in (0, 1):
        raise RuntimeError(
            f"{mutant.name}: pytest ended with {run.returncode}:\n{run.stdout[-2000:]}{run.stderr[-2000:]}"
        )
    failed = (line.split()[1] for line in run.stdout.splitlines() if line.startswith(("FAILED ", "ERROR ")))
    return Outcome(mutant, tuple(failed))


def tables(outcomes: Iterable[Outcome]) -> str:
    """Markdown: a table for each part."""
    rows: dict[str, list[str]] = {}
    for mutant, failed in outcomes:
        before, after = (_shown(test) for test in (mutant.before, failed[0] if failed else ""))
        rows.setdefault(mutant.part, []).append(f"| {mutant.name} | {before} | {after} |")
    head = ["| mutant | caught before by | caught now by |", "|---|---|---|"]
    return "\n\n".join("\n".join([f"## {part}", "", *head, *own]) for part, own in rows.items())


def _shown(test: str | None) -> str:
    if test is None:
        return "not noted"
    return f"`{test.removeprefix('tests/')}`" if test else "**none**"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="words; mutants whose part or name has one of them")
    options = parser.parse_args(arguments)
    chosen = [m for m in MUTANTS if not options.only or any(word in f"{m.part} {m.name}" for word in options.only)]
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in TREE:
            place = ROOT / name
            (shutil.copytree if place.is_dir() else shutil.copy)(place, tree / name)
        for mutant in chosen:
            outcomes.append(caught(mutant, tree))
            print(f"{mutant.part}: {mutant.name}: {' '.join(outcomes[-1].failed) or 'lives'}", flush=True)
    print(tables(outcomes))
    return int(any(not outcome.failed for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
