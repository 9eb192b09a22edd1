"""metrics.csv of a run, and TensorBoard events."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxad import parallel
from jaxad.errors import ConfigError


class MetricsLog:
    """metrics.csv, one row per logged step, and TensorBoard events on request; only the main process writes.

    Rows after the step from which a run resumes are dropped, so that every step stands there once.
    """

    def __init__(self, file: Path, resumed: int, tensorboard: Path | None = None):
        self._file, self._resumed, self._tensorboard = file, resumed, tensorboard
        self._stream: Any = None
        self._table: Any = None
        self._writer: Any = None

    def __enter__(self) -> MetricsLog:
        if not parallel.is_main_process():
            return self
        rows = self._kept()
        self._began = time.perf_counter() - (float(rows[-1]["seconds"]) if rows else 0.0)
        # Replaced at once: a run that is killed here must not lose the rows it had.
        temporary = self._file.with_suffix(".tmp")
        self._stream = temporary.open("w", newline="")
        if rows:
            self._start_table(rows[0])
            self._table.writerows(rows)
            self._stream.flush()
        temporary.replace(self._file)
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
        if self._table is None:
            self._start_table({**row, **values})
        self._table.writerow(row | known)  # type: ignore[union-attr]
        self._stream.flush()
        if self._writer is not None:
            for name, value in known.items():
                self._writer.add_scalar(name, value, step)

    def _kept(self) -> list[dict[str, str]]:
        if not (self._resumed and self._file.is_file()):
            return []
        with self._file.open(newline="") as stream:
            # The last row may have been cut off.
            whole = [row for row in csv.DictReader(stream) if None not in row.values()]
        return [row for row in whole if int(row["step"]) <= self._resumed]

    def _start_table(self, row: Mapping[str, Any]) -> None:
        self._table = csv.DictWriter(self._stream, row.keys(), restval="")
        self._table.writeheader()


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
