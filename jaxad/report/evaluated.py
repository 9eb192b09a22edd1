"""`evaluate`: a report that is data, and shows itself."""

from __future__ import annotations

import tempfile
import webbrowser
from collections.abc import Callable, Mapping
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from jaxad.data import DataSet
from jaxad.detector import Detector
from jaxad.inference.evaluation import Scored, make_report, score
from jaxad.inference.figures import figures
from jaxad.inference.results import Evaluation, notes_of
from jaxad.inference.threshold import Threshold
from jaxad.inference.tiled import Resolution
from jaxad.io.atomic import write_whole
from jaxad.io.notebook import in_notebook, show_html, table
from jaxad.io.progress import counted
from jaxad.io.text import visible
from jaxad.metrics import LABELS
from jaxad.report.page import page, write_report
from jaxad.types import Source


class Report(dict[str, Any]):
    """The dictionary of report.json (`jaxad.report.schema.validate_report`), and the page that belongs to it.

    The page shows images, which are judged once more when it is first made; until then the report holds detector and
    source. `dict(report)` holds the numbers alone.

    Args:
        content: the dictionary.
        scored: the finished pass that it is of; None for a page without pictures and curves.
    """

    def __init__(self, content: Mapping[str, Any], scored: Scored | None = None):
        super().__init__(content)
        self._scored = scored

    @cached_property
    def evaluation(self) -> Evaluation:
        """What the page shows beyond the dictionary."""
        found = Evaluation() if self._scored is None else figures(self._scored)
        self._scored = None
        return found

    def page(self) -> str:
        """The whole page as HTML, in one file without network: metrics, curves, gallery, mistakes."""
        return page(self, self.evaluation)

    def save(self, out: Path | str) -> Path:
        """Writes report.json, report.html and images.csv as `jaxad evaluate` does; returns the page's path."""
        return write_report(out, self, evaluation=self.evaluation)

    def show(self, height: int = 800) -> None:
        """Shows the whole page: below the cell of a notebook, so many pixels high; else in the browser."""
        if in_notebook():
            style = f"width:100%;height:{height}px;border:1px solid #ccc"
            # IPython would warn of a frame alone.
            show_html(f'<div><iframe srcdoc="{escape(self.page())}" style="{style}"></iframe></div>')
            return
        file = Path(tempfile.mkdtemp(prefix="jaxad-report-")) / "report.html"
        webbrowser.open(write_whole(file, self.page()).as_uri())

    def __repr__(self) -> str:
        known = (f"{LABELS[name].short} {value}" for name, value in self._percent(self["mean"]).items() if value)
        return f"<Report: {self._title()}: {', '.join(known) or 'nothing defined'}>"

    def _repr_html_(self) -> str:
        """For notebooks: the metrics of each category and their means, in percent."""
        shown = [name for name in LABELS if self["mean"].get(name) is not None]
        runs = {**self["classes"], "mean": self["mean"]}
        rows = [(name, *(self._percent(found).get(metric) or "–" for metric in shown)) for name, found in runs.items()]
        notes = [(note,) for note in notes_of(self)]
        return table(("", *(LABELS[metric].short for metric in shown)), rows, self._title()) + (
            table((), notes) if notes else ""
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # What is kept or sent to another process are the numbers.
        return Report, (dict(self),)

    def _title(self) -> str:
        return f"{self['config'].get('system', 'detector')} on {visible(self['data']['source'])}, {self['protocol']}"

    @staticmethod
    def _percent(metrics: Mapping[str, Any]) -> dict[str, str]:
        return {name: f"{100 * metrics[name]:.1f}" for name in LABELS if metrics.get(name) is not None}


def evaluate(
    detector: Detector,
    source: Source | DataSet,
    *,
    protocol: str = "exact-256",
    resolution: Resolution = "image",
    batch_size: int = 16,
    workers: int | None = None,
    threshold: Threshold | None = None,
    baseline: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Every category, seven metrics and their mean, in one pass: the dictionary of report.json.

    Args:
        detector: trained, or with its memory filled.
        source: labeled test images, or a data set, whose test part is taken.
        protocol: name of an evaluation protocol; results of different protocols are not comparable.
        resolution, batch_size, workers, progress: as in `Predictor.stream`; without `progress` a notebook shows it.
        threshold: decides about each image; recorded in the report with how many it finds, misses and rejects.
        baseline: report of the comparison detector on the same source and protocol.
        provenance: JSON values for the report's "config", e.g. how the detector was trained.

    Raises:
        DataError: no test images, images without label, or images that cannot be read.
        ConfigError: a threshold of another protocol.
    """
    how: dict[str, Any] = {"protocol": protocol, "resolution": resolution, "batch_size": batch_size, "workers": workers}
    images = len(source.test if isinstance(source, DataSet) else source)
    with counted("evaluate", images, progress) as shown:
        scored = score(detector, source, threshold=threshold, **how, progress=shown)
    return Report(make_report(scored, source, baseline=baseline, provenance=provenance), scored)
