"""Reports that differ in the seed alone, as one method; and what keeps methods from being compared."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import DataError
from jaxad.io.text import visible
from jaxad.metrics import summarize
from jaxad.report.comparison.results import Result

MEAN = ""
"""In place of a category: the mean over those that all methods have."""


@dataclass(frozen=True)
class Method:
    """A detector under one setting.

    Attributes:
        name: short, and no other method's.
        results: one for each seed.
        categories: those that are compared, which all methods have.
        changed: settings in which it differs from other methods of the same detector, as "name value".
    """

    name: str
    results: tuple[Result, ...]
    categories: tuple[str, ...]
    changed: tuple[str, ...] = field(default=())

    @property
    def system(self) -> str:
        """Registered name of the detector."""
        return self.results[0].system

    @property
    def seeds(self) -> tuple[str, ...]:
        """The seed of each result, as its report has it."""
        return tuple(result.seed for result in self.results)

    def values(self, metric: str, category: str = MEAN) -> list[float | None]:
        """A metric of each seed, 0..1; None where it is undefined."""
        return [row[metric] for row in (self._means if category == MEAN else self._rows(category))]

    def mean(self, metric: str, category: str = MEAN) -> float | None:
        """The mean over the seeds; None where the metric is undefined for one of them."""
        return combined(self.values(metric, category))

    def deviation(self, metric: str, category: str = MEAN) -> float | None:
        """The standard deviation over the seeds (n - 1); None of one seed."""
        return deviation(self.values(metric, category))

    @cached_property
    def _means(self) -> list[dict[str, float | None]]:
        return [summarize({name: result.classes[name] for name in self.categories}) for result in self.results]

    def _rows(self, category: str) -> list[Mapping[str, Any]]:
        return [result.classes[category] for result in self.results]


def combined(values: Sequence[float | None]) -> float | None:
    """The mean of values; None where one of them is undefined."""
    return None if None in values else float(np.mean(values))  # type: ignore[arg-type]


def deviation(values: Sequence[float | None]) -> float | None:
    """The standard deviation of values (n - 1); None of one, or where one of them is undefined."""
    return None if None in values or len(values) < 2 else float(np.std(values, ddof=1))  # type: ignore[arg-type]


def grouped(results: Sequence[Result], names: Sequence[str] = ()) -> tuple[list[Method], list[str]]:
    """Methods of these reports, and notes on what some of them lack.

    Args:
        results: in the order in which methods are shown.
        names: of the methods, in this order; by their folders if not given.

    Raises:
        DataError: what cannot be compared: reports of several protocols, other test images, the same run twice, no
            category in common, or another number of names.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.identity, []).append(result)
    parts = [sorted(group, key=lambda result: _number(result.seed)) for group in groups.values()]
    common = tuple(name for name in results[0].classes if all(name in result.classes for result in results))
    problems = [*_protocols(results), *_twice(parts), *_other_images(results, common)]
    if names and len(names) != len(parts):
        problems.append(f"names = {' '.join(names)}: {len(names)} names, but there are {len(parts)} methods")
    if len(set(names)) < len(names):
        problems.append(f"names = {' '.join(names)}: each must be another one")
    if not common:
        problems.append("the reports have no category in common; give reports on the same data set")
    if problems:
        raise DataError("\n  ".join(["these cannot be compared:", *problems]))
    changed = _changes(parts)
    titles = list(names) or _names(parts, changed)
    methods = [Method(*one) for one in zip(titles, map(tuple, parts), [common] * len(parts), changed, strict=True)]
    return methods, [*_missing_seeds(methods), *_missing_categories(methods, results)]


def _protocols(results: Sequence[Result]) -> list[str]:
    found: dict[str, Path] = {}
    for result in results:
        found.setdefault(result.protocol, result.file)
    if len(found) == 1:
        return []
    listed = ", ".join(f"{name} ({file})" for name, file in found.items())
    return [f"results of different protocols do not compare: {listed}; choose one with protocol = {next(iter(found))}"]


def _twice(groups: Sequence[Sequence[Result]]) -> list[str]:
    problems = []
    for group in groups:
        seen: dict[str, Result] = {}
        for result in group:
            if (other := seen.setdefault(result.seed, result)) is not result:
                seed = f"of seed {result.seed}" if result.seed else "without a seed"
                problems.append(f"{result.file}: the same run {seed} as {other.file}; give one of them")
    return problems


def _other_images(results: Sequence[Result], common: Sequence[str]) -> list[str]:
    problems, first = [], results[0]
    for other in results[1:]:
        mine, theirs = (one.report["data"].get("sha256", {}).get("test") for one in (first, other))
        if mine and theirs and mine != theirs and first.classes.keys() == other.classes.keys():
            problems.append(f"{other.file}: its test images have other pixels than those of {first.file}")
    for category in common:
        for other in results[1:]:
            if said := _difference(first, other, category):
                problems.append(f"{other.file}: {category}: {said} in {first.file}; evaluate both on the same images")
    return problems


def _difference(one: Result, other: Result, category: str) -> str:
    """In what the test images of a category differ, "" where they do not."""
    mine, theirs = one.images.get(category), other.images.get(category)
    if mine is None or theirs is None:
        counts = ("n_normal", "n_anomalous")
        here, there = ([result.classes[category][name] for name in counts] for result in (other, one))
        said = "{} normal and {} anomalous images, {} and {}".format(*here, *there)
        return said if here != there else ""
    if mine.files != theirs.files:
        odd = sorted(set(mine.files) ^ set(theirs.files))
        first = f", the first that only one has is {odd[0]}" if odd else ""
        return f"{len(theirs.files)} test images{first}; {len(mine.files)}"
    if not np.array_equal(mine.labels, theirs.labels):
        place = int(np.flatnonzero(mine.labels != theirs.labels)[0])
        return f"{mine.files[place]} has the label {theirs.labels[place]}, {mine.labels[place]}"
    return ""


def _missing_seeds(methods: Sequence[Method]) -> list[str]:
    every = sorted({seed for method in methods for seed in method.seeds if seed}, key=_number)
    notes = []
    for method in methods:
        if missing := [seed for seed in every if seed not in method.seeds] if any(method.seeds) else []:
            notes.append(f"{method.name}: no seed {', '.join(missing)}; its numbers are of {len(method.seeds)} alone")
    return notes


def _missing_categories(methods: Sequence[Method], results: Sequence[Result]) -> list[str]:
    every = dict.fromkeys(name for result in results for name in result.classes)
    notes = []
    for method in methods:
        for result in method.results:
            if missing := [name for name in every if name not in result.classes]:
                seed = f", seed {result.seed}" if result.seed else ""
                notes.append(f"{method.name}{seed}: no category {', '.join(missing)}")
    if notes:
        notes.append(
            f"all numbers are of the categories that every report has, {len(methods[0].categories)} of {len(every)}"
        )
    return notes


def _names(groups: Sequence[Sequence[Result]], changed: Sequence[tuple[str, ...]]) -> list[str]:
    """A name for each group: what its folder's path has of its own, else what its settings have."""
    paths = []
    for group in groups:
        parts = [part.removesuffix("-report") for part in group[0].file.absolute().parent.parts]
        own = [part for part in parts if part != "report" and not re.fullmatch(r"seed-\d+", part)]
        paths.append(own or parts[-1:])
    while len(paths) > 1 and len({path[0] for path in paths}) == 1 and min(map(len, paths)) > 1:
        paths = [path[1:] for path in paths]
    names = [visible("/".join(path)) if len(paths) > 1 else visible(path[-1]) for path in paths]
    if len(set(names)) < len(names):
        names = [" ".join([name, *own]) for name, own in zip(names, changed, strict=True)]
    return [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]


def _changes(groups: Sequence[Sequence[Result]]) -> list[tuple[str, ...]]:
    """For each group the settings in which it differs from others of the same detector."""
    settings = [_flat(group[0].settings) for group in groups]
    systems = [group[0].system for group in groups]
    found = []
    for own, system in zip(settings, systems, strict=True):
        others = [other for other, theirs in zip(settings, systems, strict=True) if theirs == system]
        names = sorted({name for other in others for name in (own.keys() | other) if own.get(name) != other.get(name)})
        found.append(tuple(f"{name.rpartition('.')[2]} {own.get(name)}" for name in names))
    return found


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {at: value}
    inner = (_flat(own, f"{at}.{name}".strip(".")) for name, own in value.items())
    return {name: own for part in inner for name, own in part.items()}


def _number(seed: str) -> tuple[int, str]:
    return (int(seed), "") if seed.isdecimal() else (-1, seed)
