"""The format of report.json, and the check that a dictionary has it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jaxad.errors import ReportError
from jaxad.metrics import METRICS

if TYPE_CHECKING:
    pass


def validate_report(report: Mapping[str, Any]) -> None:
    """Check a dictionary against the format of report.json (DESIGN 6).

    Required: `protocol` (name), `config`, `environment` {`versions`, `device`, `seconds`, `images_per_second`, and
    `timed`, what the rate counts, unless it is null}, `data` {`source`, `counts` {category: {name: number}}, `license`,
    `bad_files` [{`file`, `kind`, `detail`}]}, `mean`, `classes`. Optional: `notes` [text] on the results,
    `protocol_description`, `environment.timings` {stage: seconds}, `data.notes` [text], `std` beside any metrics,
    `pixel_error_bound` {metric: largest effect of binning} in a class, `baseline` {`mean`, `classes`, and any of the
    others}. Further keys are allowed; every number is finite.

    Raises:
        ReportError: lists every key that is missing, of the wrong type or out of range.
    """
    problems: list[str] = []
    _check_json(report, "report", problems)
    _check_run(report, "", problems, required=True)
    if report.get("baseline") is not None and _typed(report["baseline"], "baseline", dict, "an object", problems):
        _check_run(report["baseline"], "baseline.", problems, required=False)
    if problems:
        raise ReportError("\n".join(["the report does not have its format:", *(f"  {line}" for line in problems)]))


_TEXT, _OBJECT, _LIST = (str, "text"), (dict, "an object"), (list, "a list")


_NUMBER, _COUNT = ((int, float), "a number"), (int, "a whole number")


_MAYBE_NUMBER, _MAYBE_TEXT = ((int, float, type(None)), "a number or null"), ((str, type(None)), "text or null")


_RUN = {"protocol": _TEXT, "config": _OBJECT, "environment": _OBJECT, "data": _OBJECT}


_ENVIRONMENT = {"versions": _OBJECT, "device": _TEXT, "seconds": _MAYBE_NUMBER, "images_per_second": _MAYBE_NUMBER}


_DATA = {"source": _TEXT, "counts": _OBJECT, "licence": _MAYBE_TEXT, "bad_files": _LIST}


_BAD_FILE = {"file": _TEXT, "kind": _TEXT, "detail": _TEXT}


def _check_run(run: Mapping[str, Any], at: str, problems: list[str], *, required: bool) -> None:
    _keys(run, at, _RUN, problems, required=required)
    _keys(run, at, {"protocol_description": _TEXT, "notes": _LIST}, problems, required=False)
    _texts(run.get("notes"), f"{at}notes", problems)
    if isinstance(environment := run.get("environment"), dict):
        _keys(environment, f"{at}environment.", _ENVIRONMENT, problems, required=required)
        _keys(environment, f"{at}environment.", {"timed": _TEXT, "timings": _OBJECT}, problems, required=False)
        if environment.get("images_per_second") is not None and not environment.get("timed"):
            problems.append(f"{at}environment.timed: missing; it says what images_per_second counts")
        _values(environment.get("timings"), f"{at}environment.timings.", _NUMBER, problems)
        _values(environment.get("versions"), f"{at}environment.versions.", _TEXT, problems)
    if isinstance(data := run.get("data"), dict):
        _keys(data, f"{at}data.", _DATA, problems, required=required)
        _keys(data, f"{at}data.", {"notes": _LIST}, problems, required=False)
        _texts(data.get("notes"), f"{at}data.notes", problems)
        for category, counts in _items(data.get("counts")):
            if _typed(counts, f"{at}data.counts.{category}", *_OBJECT, problems):
                _values(counts, f"{at}data.counts.{category}.", _COUNT, problems)
        bad_files = data.get("bad_files")
        for i, bad in enumerate(bad_files if isinstance(bad_files, list) else ()):
            if _typed(bad, f"{at}data.bad_files[{i}]", *_OBJECT, problems):
                _keys(bad, f"{at}data.bad_files[{i}].", _BAD_FILE, problems, required=True)
    _keys(run, at, {"mean": _OBJECT, "classes": _OBJECT}, problems, required=True)
    if isinstance(mean := run.get("mean"), dict):
        _check_metrics(mean, f"{at}mean.", problems)
    if run.get("classes") == {}:
        problems.append(f"{at}classes: is empty; it needs one entry for each category")
    for name, metrics in _items(run.get("classes")):
        if _typed(metrics, f"{at}classes.{name}", *_OBJECT, problems):
            _check_metrics(metrics, f"{at}classes.{name}.", problems)
            _check_class(metrics, f"{at}classes.{name}.", problems)


def _check_metrics(metrics: Mapping[str, Any], at: str, problems: list[str]) -> None:
    _keys(metrics, at, dict.fromkeys(METRICS, _MAYBE_NUMBER), problems, required=True)
    numbers = ((name, metrics.get(name)) for name in METRICS)
    outside = [(name, n) for name, n in numbers if isinstance(n, int | float) and not -1e-9 <= n <= 1 + 1e-9]
    problems += [f"{at}{name} = {number}: must lie between 0 and 1" for name, number in outside]
    _keys(metrics, at, {"std": _OBJECT, "undefined": _OBJECT}, problems, required=False)
    _values(metrics.get("std"), f"{at}std.", _MAYBE_NUMBER, problems)
    _values(metrics.get("undefined"), f"{at}undefined.", _TEXT, problems)


def _check_class(metrics: Mapping[str, Any], at: str, problems: list[str]) -> None:
    _keys(metrics, at, {"pixel_error_bound": _OBJECT}, problems, required=False)
    _values(metrics.get("pixel_error_bound"), f"{at}pixel_error_bound.", _NUMBER, problems)
    _keys(metrics, at, {"n_normal": _COUNT, "n_anomalous": _COUNT, "undefined": _OBJECT}, problems, required=True)
    reasons = metrics.get("undefined")
    if not isinstance(reasons, dict):
        return
    for name in METRICS:
        if name in metrics and metrics[name] is None and not reasons.get(name):
            problems.append(f"{at}undefined.{name}: missing; it says why {name} is null")
    problems += [f"{at}undefined.{name}: {name} is not null" for name in reasons if metrics.get(name) is not None]


def _keys(
    values: Mapping[str, Any], at: str, wanted: Mapping[str, tuple], problems: list[str], *, required: bool
) -> None:
    for name, (kind, words) in wanted.items():
        if name in values:
            _typed(values[name], f"{at}{name}", kind, words, problems)
        elif required:
            problems.append(f"{at}{name}: missing; it must be {words}")


def _values(values: Any, at: str, kind: tuple, problems: list[str]) -> None:
    for name, value in _items(values):
        _typed(value, f"{at}{name}", kind[0], kind[1], problems)


def _texts(values: Any, at: str, problems: list[str]) -> None:
    for i, value in enumerate(values if isinstance(values, list) else ()):
        _typed(value, f"{at}[{i}]", *_TEXT, problems)


def _items(values: Any) -> Sequence[tuple[str, Any]]:
    return list(values.items()) if isinstance(values, dict) else []


def _typed(value: Any, at: str, kind: Any, words: str, problems: list[str]) -> bool:
    good = isinstance(value, kind) and not isinstance(value, bool)
    if not good:
        problems.append(f"{at} = {value!r}: must be {words}")
    return good


def _check_json(value: Any, at: str, problems: list[str]) -> None:
    """Everything json.dumps would refuse, or write as NaN, with the place where it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(f"{at}: key {key!r} must be text")
            _check_json(item, f"{at}.{key}", problems)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{at}[{i}]", problems)
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{at} = {value}: must be finite, or null where it is undefined")
    elif not isinstance(value, str | int | float | bool | None):
        problems.append(f"{at}: {type(value).__name__} is not a JSON value; convert it to a plain Python one")
