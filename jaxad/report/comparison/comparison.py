"""`compare`: many reports in one, with what is certain about their differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import ConfigError, DataError
from jaxad.io.notebook import table
from jaxad.io.text import visible
from jaxad.metrics import LABELS, METRICS
from jaxad.report.comparison.contrasts import Contrast, contrasts
from jaxad.report.comparison.methods import MEAN, Method, grouped
from jaxad.report.comparison.results import find_reports, read_results
from jaxad.report.comparison.significance import LEVEL, Ranking, ranking
from jaxad.report.published import Published, misfits, published_in

RESAMPLES = 2000


@dataclass(frozen=True, repr=False)
class Comparison:
    """Methods beside each other.

    Attributes:
        methods: in the order given.
        metrics: those that are compared.
        reference: name of the method that the others are tested against.
        contrasts: of every other method with it.
        rankings: by metric, of three or more methods.
        published: by method, the published values that its results may be compared with.
        others: published rows of other methods, on the same images and under the same protocol.
        notes: what is missing, and why published values were left out.
        resamples: of each test.
    """

    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    reference: str
    contrasts: tuple[Contrast, ...]
    rankings: dict[str, Ranking]
    published: dict[str, Published]
    others: tuple[Published, ...]
    notes: tuple[str, ...]
    resamples: int

    @property
    def categories(self) -> tuple[str, ...]:
        """Those that are compared."""
        return self.methods[0].categories

    @property
    def protocol(self) -> str:
        """Name of the protocol, which all reports have."""
        return self.methods[0].results[0].protocol

    def __repr__(self) -> str:
        names = ", ".join(f"{visible(method.name)} ({len(method.seeds)} seeds)" for method in self.methods)
        return f"<Comparison of {names} on {len(self.categories)} categories, {self.protocol}>"

    def _repr_html_(self) -> str:
        """For notebooks: the mean of every metric, with its deviation over seeds, in percent."""

        def cell(method: Method, metric: str) -> str:
            mean, deviation = method.mean(metric), method.deviation(metric)
            spread = "" if deviation is None else f" ± {100 * deviation:.1f}"
            return "–" if mean is None else f"{100 * mean:.1f}{spread}"

        heads = ("", "seeds", *(LABELS[metric].short for metric in self.metrics))
        rows = [(m.name, len(m.seeds), *(cell(m, metric) for metric in self.metrics)) for m in self.methods]
        return table(heads, rows, f"Means over {len(self.categories)} categories, {self.protocol}")

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "protocol": self.protocol,
            "categories": list(self.categories),
            "metrics": list(self.metrics),
            "reference": self.reference,
            "methods": [_method_json(method, self.metrics) for method in self.methods],
            "contrasts": [asdict(contrast) for contrast in self.contrasts],
            "level": LEVEL,
            "resamples": self.resamples,
            "rankings": {
                metric: {**asdict(found), "ranks": found.ranks.tolist()} for metric, found in self.rankings.items()
            },
            "published": {name: row.to_json() for name, row in self.published.items()},
            "others": [row.to_json() for row in self.others],
            "notes": list(self.notes),
        }


def compare(
    places: Sequence[Path | str],
    *,
    names: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    reference: str | None = None,
    protocol: str | None = None,
    published: Sequence[Published] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compares the reports of several detectors on the same images; those that differ in the seed alone are one method.

    Args:
        places: report.json files, folders of reports, runs with a report, or folders of such folders.
        names: of the methods, in the order in which they are found; from their folders if not given.
        metrics: those to compare, of `jaxad.metrics.METRICS`; all that are defined if not given.
        reference: name of the method that the others are tested against; the first one if not given.
        protocol: take reports of this protocol alone.
        published: rows to show besides, those that are of the same images and protocol.
        resamples: draws of each bootstrap and each permutation test; at least 100.
        seed: of these draws.
        progress: called with the number of tests done and of all.

    Raises:
        DataError: no reports, or reports that do not compare.
        ReportError: files that are no reports.
        ConfigError: arguments that cannot be.
    """
    problems = [
        f"metrics = {name}: unknown; there are {', '.join(METRICS)}" for name in metrics or () if name not in METRICS
    ]
    problems += [] if resamples >= 100 else [f"resamples = {resamples}: must be at least 100"]
    if problems:
        raise ConfigError("\n  ".join(problems))
    files, unreported = find_reports([Path(place) for place in places])
    results = read_results(files, only=protocol)
    bare = [f"{run}: a run without a report; jaxad evaluate --checkpoint {run} makes one" for run in unreported]
    if not results:
        others = "" if protocol is None else f" under protocol = {protocol}"
        raise DataError("\n  ".join([f"there is no report to compare{others}:", *(bare or map(str, files))]))
    methods, notes = grouped(results, names)
    known = [method.name for method in methods]
    if reference is not None and reference not in known:
        raise ConfigError(f"reference = {reference}: no such method; there are {', '.join(known)}")
    chosen = reference or known[0]
    shown = tuple(
        name for name in metrics or METRICS if any(value is not None for m in methods for value in m.values(name))
    )
    beside, left_out = _published(methods)
    others, not_fit = _others(published, methods)
    found, untested = contrasts(methods, chosen, shown, resamples=resamples, seed=seed, progress=progress)
    return Comparison(
        tuple(methods),
        shown,
        chosen,
        tuple(found),
        {metric: found for metric in shown if (found := _ranking(methods, metric)) is not None},
        beside,
        tuple(others),
        (*bare, *notes, *untested, *left_out, *not_fit),
        resamples,
    )


def _ranking(methods: Sequence[Method], metric: str) -> Ranking | None:
    rows = [[method.mean(metric, name) for method in methods] for name in methods[0].categories]
    known = [row for row in rows if None not in row]
    return ranking(np.array(known, float).T) if known else None


def _published(methods: Sequence[Method]) -> tuple[dict[str, Published], list[str]]:
    """What stands beside the methods, and why other published values do not."""
    found, notes = {}, []
    for method in methods:
        rows = [(row, result.report) for result in method.results if (row := published_in(result.report)) is not None]
        if said := misfits(rows):
            notes.append(f"{method.name}: published values of {rows[0][0].source} left out: {said}")
        elif rows and set(method.categories) != set(method.results[0].classes):
            notes.append(
                f"{method.name}: published values of {rows[0][0].source} left out: not all categories compared"
            )
        elif rows:
            found[method.name] = rows[0][0]
    return found, notes


def _others(published: Sequence[Published], methods: Sequence[Method]) -> tuple[list[Published], list[str]]:
    """The published rows that fit, and why others do not, once for each source and data set."""
    first = methods[0].results[0].report
    first = {**first, "classes": {name: first["classes"][name] for name in methods[0].categories}}
    reasons = [(row, row.misfit(first)) for row in published]
    notes = [f"{row.source}, {row.data}: left out: {said}" for row, said in reasons if said]
    return [row for row, said in reasons if not said], list(dict.fromkeys(notes))


def _method_json(method: Method, metrics: Sequence[str]) -> dict[str, Any]:
    def cells(category: str) -> dict[str, Any]:
        return {
            metric: {
                "mean": method.mean(metric, category),
                "std": method.deviation(metric, category),
                "seeds": method.values(metric, category),
            }
            for metric in metrics
        }

    return {
        "name": method.name,
        "system": method.system,
        "seeds": list(method.seeds),
        "changed": list(method.changed),
        "reports": [str(result.file) for result in method.results],
        "mean": cells(MEAN),
        "classes": {name: cells(name) for name in method.categories},
    }
