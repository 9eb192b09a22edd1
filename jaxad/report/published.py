"""Published values, and whether a report may stand beside them: on the same data set, categories and protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jaxad.data.registry import datasets
from jaxad.errors import ConfigError, ReportError
from jaxad.metrics import METRICS

KEY = "published"
"""Where the `config` of a report has them."""


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
    if given is None:
        return None
    try:
        found = Published(**given)
        texts = (found.source, found.data, found.protocol, found.row)
        if all(isinstance(text, str) for text in texts) and all(
            name in METRICS and isinstance(value, float | int) for name, value in found.values.items()
        ):
            return found
    except (TypeError, AttributeError):
        pass
    raise ReportError(f"config.{KEY}: needs source, data, protocol, row, and values by metric in 0..1")


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
