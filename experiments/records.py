"""What experiments keep of a row: for each seed report.json, report.html and images.csv, which `jaxad compare` reads.

Not an experiment itself; the `rows.py` of each detector builds on it. A record has the scores of all images, metrics by
category and their means, protocol, settings and preset, seed, the hashes of training and test images, versions, device
and date; and what was published for the row, with the data set and the protocol that this is of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jaxad
from jaxad.inference.evaluation import Scored, make_report
from jaxad.inference.results import Evaluation
from jaxad.report.published import KEY, Published

Percent = Sequence[float | None]


@dataclass(frozen=True)
class Printed:
    """A published table.

    Attributes:
        source: paper and table.
        protocol: that follows its evaluation.
        metrics: the columns.
        rows: percent in the order of `metrics`, by row; None where the table says nothing.
        data: the data set of every row that names none.
    """

    source: str
    protocol: str
    metrics: Sequence[str]
    rows: Mapping[str, Percent] = field(default_factory=dict)
    data: str = ""

    def row(self, name: str, data: str = "") -> Published | None:
        """What was published for a row on a data set; None where nothing was."""
        if (values := self.rows.get(name)) is None:
            return None
        shares = zip(self.metrics, values, strict=True)
        known = {metric: round(value / 100, 6) for metric, value in shares if value is not None}
        return Published(self.source, data or self.data, self.protocol, known, name)


def keep(
    folder: Path,
    scored: Scored,
    data: jaxad.data.DataSet | jaxad.data.ImageSource,
    *,
    published: Published | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes the record of a finished pass into a folder; returns the content of report.json."""
    row = {} if published is None else {KEY: published.to_json()}
    report = make_report(scored, data, provenance={**(provenance or {}), **row})
    jaxad.write_report(folder, report, evaluation=Evaluation(scored.detector.title, decisions=scored.decisions))
    return report


def run_record(meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of the run that trained the detector, from what its checkpoint records."""
    return {**{name: meta[name] for name in ("train", "data", "step")}, "backbone": meta["pretrained"]}
