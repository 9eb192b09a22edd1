"""Published values, and whether a report may stand beside them: on the same data set, categories and protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxad.config.fields import read_fields
from jaxad.data.registry import datasets
from jaxad.errors import ConfigError, ReportError
from jaxad.io.json_files import SETTINGS, read_json
from jaxad.metrics import METRICS

KEY = "published"
"""Where the `config` of a report has them."""
_FORM = "needs source, data, protocol, row, and values by metric as shares of 1"


@dataclass(frozen=True)
class Published:
    """One row of a published table.

    Attributes:
        source: paper and table, e.g. "DPDiff-AD, Table 5".
        data: data set, as `jaxad prepare` names it; with a subset or category behind a slash.
        protocol: evaluation protocol that follows the published evaluation.
        values: mean over the categories by metric, 0..1.
        row: name of the row.
    """

    source: str
    data: str
    protocol: str
    values: Mapping[str, float] = field(default_factory=dict)
    row: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values; the inverse of `published_in`."""
        return asdict(self)

    def misfit(self, report: Mapping[str, Any]) -> str:
        """Why a report's results are not to be compared with these values, "" where they are."""
        reasons = []
        if report["protocol"] != self.protocol:
            reasons.append(f"under {self.protocol}, not {report['protocol']}")
        if said := _other_data(self.data, report):
            reasons.append(said)
        return "; ".join(reasons)


def published_in(report: Mapping[str, Any]) -> Published | None:
    """The published row that a report was made to reproduce, None where it names none.

    Raises:
        ReportError: it has another form.
    """
    given = report["config"].get(KEY)
    if given is not None and (found := _row(given)) is None:
        raise ReportError(f"config.{KEY}: {_FORM}")
    return None if given is None else found


def read_published(file: Path) -> list[Published]:
    """The rows of a JSON file, a list of what `Published.to_json` gives.

    Raises:
        ReportError: no such file, or entries of another form, which are all named.
    """
    content = read_json(file, size=SETTINGS, error=lambda kind, where, said: ReportError(f"{where}: {kind}: {said}"))
    if not isinstance(content, list):
        raise ReportError(f"{file}: must be a list of published rows")
    rows = [_row(entry) for entry in content]
    if wrong := [str(place) for place, row in enumerate(rows) if row is None]:
        raise ReportError(f"{file}: entry {', '.join(wrong)}: {_FORM}")
    return [row for row in rows if row is not None]


def misfits(rows: Iterable[tuple[Published, Mapping[str, Any]]]) -> str:
    """Why published rows are not to stand beside the reports that they come with, "" where they are."""
    return "; ".join(dict.fromkeys(said for row, report in rows if (said := row.misfit(report))))


def _row(given: Any) -> Published | None:
    """A row from its JSON values, None where they are none."""
    if not isinstance(given, dict) or not {"source", "data", "protocol", "values"} <= given.keys():
        return None
    values, problems = read_fields(Published, given)
    shares = values.get("values", {}).items()
    if problems or any(name not in METRICS or not -1 <= value <= 1 for name, value in shares):
        return None
    return Published(**values)


def _other_data(data: str, report: Mapping[str, Any]) -> str:
    """What keeps the test images of a report from being those of a benchmark, "" for nothing."""
    name, _, part = data.partition("/")
    counts = {
        category: (metrics["n_normal"], metrics["n_anomalous"]) for category, metrics in report["classes"].items()
    }
    source = report["data"]["source"]
    official = _official(name, part)
    if not official:
        return "" if source == data else f"for {data}, not {source}"
    if missing := [category for category in official if category not in counts]:
        there = len(official) - len(missing)
        return f"for the {len(official)} categories of {data}, of which {source} has {there}"
    if len(counts) > len(official):
        return f"for the {len(official)} categories of {data}, not {len(counts)}"
    other = [name for name, numbers in official.items() if numbers and numbers != counts[name]]
    if not other:
        return ""
    numbers, own = (" normal and ".join(map(str, part)) for part in (official[other[0]], counts[other[0]]))
    return f"for the test images of {data}: {numbers} anomalous ones of {other[0]}, not {own}"


def _official(name: str, part: str) -> dict[str, tuple[int, ...]]:
    """Official categories with their normal and anomalous test images; () where the data set has choices that say how
    many there are, or none are published. Nothing where jaxad does not know the data set."""
    try:
        known: Any = datasets.get(name)
    except ConfigError:
        return {}
    categories: tuple[str, ...] = getattr(known, "categories", ())
    if part in getattr(known, "subsets", {}):
        categories = categories[: known.subsets[part][0]]
    elif part:
        categories = (part,) if part in categories else ()
    if getattr(known, "options", ()):
        return dict.fromkeys(categories, ())
    return {category: _test_images(known.counts(category)) for category in categories}


def _test_images(counts: Mapping[Any, int]) -> tuple[int, ...]:
    wanted = [("test", 0), ("test", 1)]
    return tuple(counts[part] for part in wanted) if all(part in counts for part in wanted) else ()
