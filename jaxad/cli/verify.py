"""`jaxad verify`: whether what a run has stored is what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from jaxad.cli._command import Command
from jaxad.cli._printing import show
from jaxad.errors import CheckpointError


@dataclass(frozen=True)
class Verify(Command):
    """Compare every byte that a run has stored, checkpoints and cached features, with what it wrote.

    Changes nothing, and fails where something is damaged; `jaxad fit` then goes on from the newest step that is whole.
    """

    words: ClassVar[str] = "verify"

    run_: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """A workdir, one step's folder, or a folder of cached features."""

    def run(self) -> None:
        """Compares, and prints what was found of each part."""
        from jaxad.training.verification import verify

        findings = verify(self.run_)
        for finding in findings:
            show(finding)
        if damaged := sum(bool(finding.damage) for finding in findings):
            raise CheckpointError(f"{damaged} of {len(findings)} parts are damaged; all others are as written")
        show("nothing is damaged")
