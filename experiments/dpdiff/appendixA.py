"""DPDiff-AD, Appendix A: the categories of S1, S2 and S3 of Real-IAD Variety, and whether prepared data have them.

Command (without data; with --data also what was prepared):
    python -m experiments.dpdiff.appendixA --data real_iad_variety

Expected: no difference. The paper calls the choice random; its lists are the first 30, 60 and 100 of the official names
in ASCII order. `appendixA.txt` has them as printed, with underscores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.rows import DataOptions

PRINTED = tuple(Path(__file__).with_name("appendixA.txt").read_text("utf-8").split())
SUBSETS = {"s1": 30, "s2": 60, "s3": 100}


@dataclass(frozen=True, kw_only=True)
class AppendixA(DataOptions):
    """Print the lists."""

    data: str | None = None
    """Prepared Real-IAD Variety, whose subsets are compared."""


def main(options: AppendixA) -> dict[str, list[str]]:
    """Prints each list; returns the names in which prepared data differ from it, by subset."""
    differences: dict[str, list[str]] = {}
    for subset, size in SUBSETS.items():
        names = PRINTED[:size]
        print(f"{subset} ({size}): {', '.join(names)}")
        if options.data is not None:
            there = options.load(f"{options.data}/{subset}").categories
            differences[subset] = sorted(set(map(_plain, there)) ^ set(map(_plain, names)))
            print(f"{subset}: prepared data differ in {', '.join(differences[subset]) or 'nothing'}", flush=True)
    return differences


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


if __name__ == "__main__":
    main(tyro.cli(AppendixA, description=__doc__))
