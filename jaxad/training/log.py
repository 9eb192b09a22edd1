"""metrics.csv of a run, and TensorBoard events."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxad import parallel
from jaxad.errors import ConfigError
from jaxad.io.atomic import set_aside


class MetricsLog:
    """metrics.csv, one row per logged step, and TensorBoard events on request; only the main process writes.

    Rows after the step from which a run resumes are dropped, so that every step stands there once. A file that is
    damaged is renamed to metrics-damaged.csv and begun anew.

    Args:
        file: metrics.csv.
        resumed: steps done before.
        tensorboard: folder for the events, None for none.
        warn: told of a damaged file.
    """

    def __init__(
        self,
        file: Path,
        resumed: int,
        tensorboard: Path | None = None,
        warn: Callable[[Sequence[str]], None] = lambda texts: None,
    ):
        self._file, self._resumed, self._tensorboard, self._warn = file, resumed, tensorboard, warn
        self._stream: Any = None
        self._table: Any = None
        self._writer: Any = None

    def __enter__(self) -> MetricsLog:
        if not parallel.is_main_process():
            return self
        rows = self._kept()
        self._began = time.perf_counter() - (float(rows[-1]["seconds"]) if rows else 0.0)
        self._open(rows)
        if self._tensorboard is not None:
            self._writer = summary_writer()(str(self._tensorboard / "tensorboard"), purge_step=self._resumed + 1)
        return self

    def __exit__(self, *_: object) -> None:
        for closable in (self._stream, self._writer):
            if closable is not None:
                closable.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds the row of a step and flushes it; None leaves a field empty."""
        if self._stream is None:
            return
        row = {"step": step, "seconds": round(time.perf_counter() - self._began, 3)}
        known = {name: float(f"{value:.6g}") for name, value in values.items() if value is not None}
        if self._table is not None and (strange := {*row, *values} - {*self._table.fieldnames}):
            self._stream.close()
            self._set_aside(f"no columns {', '.join(sorted(strange))}")
            self._open([])
        if self._table is None:
            self._start_table({**row, **values})
        self._table.writerow(row | known)  # type: ignore[union-attr]
        self._stream.flush()
        if self._writer is not None:
            for name, value in known.items():
                self._writer.add_scalar(name, value, step)

    def _open(self, rows: Sequence[Mapping[str, str]]) -> None:
        # Replaced at once: a run that is killed here must not lose the rows it had.
        temporary = self._file.with_suffix(".tmp")
        self._stream, self._table = temporary.open("w", newline="", encoding="utf-8"), None
        if rows:
            self._start_table(rows[0])
            self._table.writerows(rows)
            self._stream.flush()
        temporary.replace(self._file)

    def _kept(self) -> list[dict[str, str]]:
        if not os.path.lexists(self._file) or (not self._resumed and self._file.is_file()):
            return []
        try:
            return [row for row in read_metrics(self._file) if int(row["step"]) <= self._resumed]
        except (ValueError, KeyError, csv.Error, OSError) as error:
            self._set_aside(str(error))
            return []

    def _set_aside(self, why: str) -> None:
        aside = set_aside(self._file, "metrics-damaged.csv")
        self._warn([f"{self._file}: damaged ({why}); set aside as {aside.name} and begun anew"])

    def _start_table(self, row: Mapping[str, Any]) -> None:
        self._table = csv.DictWriter(self._stream, row.keys(), restval="")
        self._table.writeheader()


def read_metrics(file: Path) -> list[dict[str, str]]:
    """The whole rows of metrics.csv, by column.

    Raises:
        ValueError, KeyError, csv.Error: the file is not what was written.
        OSError: it cannot be read.
    """
    with file.open(newline="", encoding="utf-8") as stream:
        table = csv.DictReader(stream)
        # The last row may have been cut off.
        rows = [row for row in table if None not in row.values()]
    if table.fieldnames is not None and list(table.fieldnames[:2]) != ["step", "seconds"]:
        raise ValueError("the first line names no columns")
    for row in rows:
        if None in row or int(row["step"]) < 1 or not math.isfinite(float(row["seconds"])):
            raise ValueError("a row that was not written so")
    return rows


def summary_writer() -> Any:
    """The class that writes TensorBoard events.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        from tensorboardX import SummaryWriter  # type: ignore[import-not-found]
    except ImportError as error:
        raise ConfigError("tensorboard = True: needs the package tensorboardX (pip install tensorboardX)") from error
    return SummaryWriter
