"""What all experiments share: the data they load, means over seeds, lines in percent beside the published ones.

Not an experiment itself; the `rows.py` of each detector builds on it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jaxad
from experiments.records import Printed
from jaxad.report.comparison.methods import combined, deviation
from jaxad.report.published import misfits

Mean = dict[str, float | None]
"""Metrics, 0..1, by name; None where one is undefined."""


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Where the data sets of an experiment are."""

    data_dir: Path | None = None
    """Folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""

    def load(self, data: str, **settings: Any) -> jaxad.data.DataSet:
        """A data set with all of its training images, as published; `settings` are further fields of DataConfig."""
        return jaxad.data.load(data, self.data_dir, config=jaxad.DataConfig(**{"holdout": 0.0, **settings}))


class Lines:
    """Prints the rows of a table, ours beside the published ones.

    Args:
        printed: the published table.
        width: of the rows' names, in characters.
    """

    def __init__(self, printed: Printed, *, width: int):
        self._metrics, self._printed, self._width = printed.metrics, printed, width
        print(f"{'row':{width}} {'':10} " + head(printed.metrics))

    def show(
        self,
        name: str,
        means: Sequence[Mapping[str, float | None]],
        *,
        data: str = "",
        reports: Sequence[Mapping[str, Any]] = (),
    ) -> Mean:
        """Prints a row from the metrics of each seed; returns their means.

        Args:
            name: of the row.
            means: of each seed.
            data: the data set that the published row is of; that of the table if not given.
            reports: that the means are of. Published values are left out, and it is said why, where these are of
                another data set, of other categories, or under another protocol.
        """
        columns = {metric: [one[metric] for one in means] for metric in self._metrics}
        mean = {metric: combined(values) for metric, values in columns.items()}
        self._line(name, "ours", list(mean.values()))
        if len(means) > 1:
            self._line("", "std", [deviation(values) for values in columns.values()])
        if (published := self._printed.row(name, data)) is not None:
            if said := misfits((published, report) for report in reports):
                print(f"{'':{self._width}} {'published':10} left out: {said}", flush=True)
            else:
                self._line("", "published", [published.values.get(metric) for metric in self._metrics])
        return mean

    def _line(self, name: str, title: str, values: Sequence[float | None]) -> None:
        print(f"{name:{self._width}} {title:10} {percent(values)}", flush=True)


def head(metrics: Sequence[str]) -> str:
    """Names of metrics as the heads of the columns of `percent`."""
    return " ".join(f"{name:>11}" for name in metrics)


def percent(values: Sequence[float | None], width: int = 11) -> str:
    """Values 0..1 as columns of percent, "-" for None."""
    return " ".join(f"{'-':>{width}}" if value is None else f"{100 * value:{width}.1f}" for value in values)


def slug(name: str) -> str:
    """A name in a form that suits a folder."""
    return re.sub(r"\W+", "-", name).strip("-")
