"""`jaxad check`: what a data set holds and what is wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from jaxad.cli._command import below_one, raise_problems
from jaxad.cli._data import DataCommand
from jaxad.cli._printing import show
from jaxad.errors import DataError
from jaxad.io.locks import require_writable


@dataclass(frozen=True, kw_only=True)
class Check(DataCommand):
    """Examine a data set: counts, what folders hold, damaged images, masks that do not fit, copies, leaks, labels."""

    words: ClassVar[str] = "check"

    out: Path | None = None
    """Also write counts, sizes, modes and problems to this file, as JSON."""

    def run(self) -> None:
        """Examines; fails where a problem would stop a run."""
        from jaxad.io.atomic import write_whole
        from jaxad.io.json_files import json_text

        raise_problems(below_one(self, "workers"))
        if self.out is not None:
            require_writable(self.out.parent, "out")
        dataset = self.load(verify=True)
        show(dataset.summary())
        for category, counts in dataset.images.items():
            show(f"{category}: " + "; ".join(_listing(counts[name]) for name in ("sizes", "kinds")))
        for problem in dataset.problems:
            show(f"{'problem' if problem.fatal else 'note'}: {problem}")
        if self.out is not None:
            problems = [dataclasses.asdict(problem) for problem in dataset.problems]
            content = {"data": dataset.name, "counts": dataset.counts, "images": dataset.images, "problems": problems}
            write_whole(self.out, json_text(content, indent=2) + "\n")
        if fatal := [problem for problem in dataset.problems if problem.fatal]:
            number = f"{len(fatal)} problem{'s' if len(fatal) > 1 else ''}"
            raise DataError(f"{number} would stop a run; mend, or leave out with --on-bad skip of fit and evaluate")
        show("nothing that would stop a run")


def _listing(numbers: Mapping[str, int], most: int = 4) -> str:
    """What there is and how often, the commonest first: "900 x 900 (209), 448 x 448 (3)"."""
    ordered = sorted(numbers, key=lambda name: -numbers[name])
    shown = ", ".join(f"{name} ({numbers[name]})" for name in ordered[:most])
    return shown + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
