"""`jaxad drift`: whether what comes along the line still looks like what the threshold was measured on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from jaxad.cli._command import Command
from jaxad.cli._printing import show


@dataclass(frozen=True)
class Drift(Command):
    """Compare the scores of accepted parts with those of the hold-out: has what is inspected changed?

    Predictions are taken in their order, files as they are given, oldest first.
    """

    words: ClassVar[str] = "drift"

    run_: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Workdir of the run that predicted, or one step's folder."""
    predictions: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTIONS...")]
    """Files predictions.jsonl, or the folders they are in."""
    out: Path | None = None
    """JSON file for what is reported."""

    def run(self) -> None:
        """Compares, and says what it means."""
        from jaxad.cli._tables import print_table
        from jaxad.errors import ConfigError
        from jaxad.inference.drift import drift
        from jaxad.io.atomic import write_whole

        if not self.predictions:
            raise ConfigError("predictions: none given; name files or folders that `jaxad predict` has written")
        found = drift(self.run_, self.predictions)
        if self.out is not None:
            write_whole(self.out, json.dumps([one.to_json() for one in found], indent=1))
        heads = ("category", "images", "accepted", "median", "hold-out", "its median", "KS", "p", "above, in order")
        rows = [
            (
                one.category or "all",
                *map(str, (one.images, one.accepted)),
                _number(one.median),
                str(one.holdout),
                *map(_number, (one.holdout_median, one.statistic, one.p)),
                " ".join(f"{100 * share:.0f}%" for share in one.above),
            )
            for one in found
        ]
        print_table(heads, rows, numbers=(False, *[True] * 7, False))
        for one in found:
            show(one)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"
