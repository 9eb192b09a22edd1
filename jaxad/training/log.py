"""The rows of a run: metrics.csv and evaluations-PART.csv in its folder, and the loggers that were asked for."""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jaxad import parallel
from jaxad.errors import DamagedError
from jaxad.io.atomic import set_aside
from jaxad.io.json_files import LIST
from jaxad.io.untrusted import bytes_of, reading, told
from jaxad.training.logger import LoggedRun, Loggers

METRICS = "metrics.csv"
PARTS = ("holdout", "test")
"""Parts of the data that are evaluated on the way."""
COUNTS = ("images", "of")
"""Columns of evaluations that say how many images were scored, and of how many."""

Warn = Callable[[Sequence[str]], None]


def evaluations_file(part: str) -> str:
    """Name of the table of evaluations on a part of the data, "holdout" or "test"."""
    return f"evaluations-{part}.csv"


class MetricsLog:
    """A table with one row for each logged step; only the main process writes.

    Rows after the step from which a run resumes are dropped, so that every step stands there once. A file that is
    damaged is renamed to NAME-damaged.csv and begun anew.

    Args:
        file: the table.
        resumed: steps done before.
        warn: told of a damaged file.
    """

    def __init__(self, file: Path, resumed: int, warn: Warn = lambda texts: None):
        self._file, self._resumed, self._warn = file, resumed, warn
        self._stream: Any = None
        self._table: Any = None
        self.last: int | None = None
        """The step of the last row, None without one."""

    def __enter__(self) -> MetricsLog:
        if not parallel.is_main_process():
            return self
        rows = self._kept()
        self.last = int(rows[-1]["step"]) if rows else None
        self._began = time.perf_counter() - (float(rows[-1]["seconds"]) if rows else 0.0)
        self._open(rows)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Adds the row of a step and flushes it; None leaves a field empty."""
        if self._stream is None:
            return
        row = {"step": step, "seconds": round(time.perf_counter() - self._began, 3)}
        if self._table is not None and (strange := {*row, *values} - {*self._table.fieldnames}):
            self._stream.close()
            self._set_aside(f"{self._file}: no columns {', '.join(sorted(strange))}")
            self._open([])
        if self._table is None:
            self._start_table({**row, **values})
        self._table.writerow(row | rounded(values))  # type: ignore[union-attr]
        self._stream.flush()
        self.last = step

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
        except DamagedError as error:
            self._set_aside(f"damaged: {error}")
            return []

    def _set_aside(self, why: str) -> None:
        aside = set_aside(self._file, f"{self._file.stem}-damaged.csv")
        self._warn([f"{why}; set aside as {aside.name} and begun anew"])

    def _start_table(self, row: Mapping[str, Any]) -> None:
        self._table = csv.DictWriter(self._stream, row.keys(), restval="")
        self._table.writeheader()


class RunLog:
    """All that gets the rows of a run. What cannot be written is told once, and costs no step.

    Args:
        run: whose rows.
        loggers: names of the loggers that get them too.
        part: of the data that is evaluated while training, "holdout" or "test"; None for none.
        warn: told of damaged files, and of what has failed.
    """

    def __init__(self, run: LoggedRun, loggers: Sequence[str], part: str | None, warn: Warn):
        self._run, self._names, self._warn = run, loggers, warn
        files = [METRICS] if part is None else [METRICS, evaluations_file(part)]
        self._tables = [MetricsLog(run.workdir / name, run.resumed, warn) for name in files]
        self._failed: set[MetricsLog] = set()

    def __enter__(self) -> RunLog:
        for table in self._tables:
            table.__enter__()
        self._loggers = Loggers(self._names if parallel.is_main_process() else (), self._run, self._warn)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        for table in self._tables:
            # What could not be written still cannot.
            with suppress(OSError):
                table.__exit__()
        self._loggers.close(error)

    def metrics(self, step: int, values: Mapping[str, float | None]) -> None:
        """The row of a step."""
        self._write(self._tables[0], step, values)
        self._loggers.write(step, rounded(values))

    def evaluation(self, step: int, values: Mapping[str, float | None]) -> None:
        """The row of an evaluation."""
        self._write(self._tables[1], step, values)
        self._loggers.write(step, {f"evaluation/{name}": value for name, value in rounded(values).items()})

    def lacks_evaluation(self, step: int) -> bool:
        """Whether the last row is not that of the evaluation after so many steps; the same in every process."""
        return bool(parallel.from_main(self._tables[1].last != step))

    def _write(self, table: MetricsLog, step: int, values: Mapping[str, float | None]) -> None:
        if table in self._failed:
            return
        try:
            table.write(step, values)
        except OSError as error:
            self._failed.add(table)
            self._warn([f"{self._run.workdir}: no more rows can be written ({told(error)}); the training goes on"])


def read_evaluations(workdir: Path, last: int) -> dict[str, dict[str, Any]]:
    """What a run has noted of itself on the way, for reports.

    Args:
        workdir: of the run.
        last: the last step that counts.

    Returns:
        By part of the data, "holdout" or "test": "images" that were scored at the last time, "of" how many there are,
        and columns of the table, "steps" and "values" {name: one for each step, None where it is undefined}.

    Raises:
        DamagedError: as `read_metrics`.
    """
    found = {}
    for part in PARTS:
        file = workdir / evaluations_file(part)
        rows = [row for row in read_metrics(file) if int(row["step"]) <= last] if file.exists() else []
        if not rows:
            continue
        with reading(_damaged(file)):
            counts = {name: int(_number(rows[-1][name])) for name in COUNTS if rows[-1].get(name)}
            names = [name for name in rows[0] if name not in ("step", "seconds", *COUNTS)]
            columns = {name: [_number(row[name]) if row[name] else None for row in rows] for name in names}
        values = {name: column for name, column in columns.items() if any(value is not None for value in column)}
        found[part] = {**counts, "steps": [int(row["step"]) for row in rows], "values": values}
    return found


def _number(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text!r} is no finite number")
    return number


def rounded(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values that there are, with the digits that stand in the table; whole numbers as they are."""
    known = {name: value for name, value in values.items() if value is not None}
    return {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in known.items()}


def read_metrics(file: Path) -> list[dict[str, str]]:
    """The whole rows of metrics.csv, or of a table of evaluations, by column.

    Raises:
        DamagedError: the file cannot be read, or is not what was written; names it.
    """
    damaged = _damaged(file)
    with reading(damaged):
        table = csv.DictReader(io.StringIO(bytes_of(file, LIST.bytes, damaged).decode(), newline=""))
        # The last row may have been cut off.
        rows = [row for row in table if None not in row.values()]
        if table.fieldnames is not None and list(table.fieldnames[:2]) != ["step", "seconds"]:
            raise damaged("the first line names no columns")
        for row in rows:
            if None in row or int(row["step"]) < 0 or not math.isfinite(float(row["seconds"])):
                raise damaged("a row that was not written so")
    return rows


def _damaged(file: Path) -> Callable[[str], DamagedError]:
    return lambda said: DamagedError(f"{file}: {said}")
