"""What an evaluation leaves behind: the dictionary of report.json, and the arrays that only the HTML page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxad.errors import ReportError
from jaxad.metrics import METRICS

if TYPE_CHECKING:
    from jaxad.types import Record

Rank = Literal["best", "median", "worst"]
Curve = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Curves:
    """The curves of one category, each as (x [m], y [m]) in drawing order, any number of points.

    Attributes:
        image_roc, pixel_roc: false-positive rate and true-positive rate.
        image_pr, pixel_pr: recall and precision.
    None where the curve is undefined.
    """

    image_roc: Curve | None = None
    image_pr: Curve | None = None
    pixel_roc: Curve | None = None
    pixel_pr: Curve | None = None


@dataclass(frozen=True)
class Case:
    """One test image for the gallery.

    Attributes:
        record: what is known of the image (`jaxad.types.Record`).
        image: uint8 [h w 3] at its own size.
        map: float [h w] after the protocol's smoothing, of any size.
        score: the image score.
        rank: where it stands in its category, as `choose_cases` says.
        mask: the true defect, [h w] of any size, or None.
    """

    record: Record
    image: np.ndarray
    map: np.ndarray
    score: float
    rank: Rank
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class PrototypeFigure:
    """Similarity of one image's patches to its prototypes (paper Fig. 8).

    Attributes:
        record: what is known of the image.
        image: uint8 [h w 3] at its own size.
        maps: float [k h w], cosine similarity to each prototype.
        names: k names, e.g. "local 1" or "global 2"; equal names in several figures share one colour scale.
        mask: the true defect, [h w] of any size, or None.
    """

    record: Record
    image: np.ndarray
    maps: np.ndarray
    names: Sequence[str]
    mask: np.ndarray | None = None


@dataclass(frozen=True)
class TsneInput:
    """Patch features before and after reconstruction (paper Fig. 7); the report embeds at most 1,500 of them.

    Attributes:
        before, after: float [m c], the same m patches; fewer than 10 are not drawn.
        anomalous: bool [m], whether the patch lies on a defect.
        categories: m category names.
    """

    before: np.ndarray
    after: np.ndarray
    anomalous: np.ndarray
    categories: Sequence[str]


@dataclass(frozen=True)
class Evaluation:
    """Everything the HTML page shows beyond report.json. What a system or a data set does not have is left out.

    Attributes:
        system, baseline: names to print, e.g. "DPDiff-AD" and "Patch bank"; "" takes `config.system` of the report.
        curves, baseline_curves: by category.
        scores: (scores [m], labels [m] of 0 and 1) of all test images, by category.
        thresholds: image threshold by category; an image is called anomalous when its score is above it.
        threshold_note: where the thresholds come from, one sentence.
        heat: (low, high) of the map colours by category, from `viz.heat_scale`. Categories left out take it from the
            maps of their normal cases and their pixel threshold.
        pixel_thresholds: pixel threshold by category.
        cases: the gallery, in any order.
        prototypes: figures of a few images, best one anomalous and one normal per category.
        tsne: features before and after reconstruction.
    """

    system: str = ""
    baseline: str = ""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    baseline_curves: Mapping[str, Curves] = field(default_factory=dict)
    scores: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    threshold_note: str = ""
    heat: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pixel_thresholds: Mapping[str, float] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    prototypes: Sequence[PrototypeFigure] = ()
    tsne: TsneInput | None = None


def choose_cases(scores: np.ndarray, labels: np.ndarray) -> dict[Rank, int]:
    """Which images of a category the gallery shows.

    Args:
        scores: float [m].
        labels: [m] of 0 (normal) and 1 (anomalous).

    Returns:
        Indices. "best" is the anomalous image with the highest score, "median" the anomalous one in the middle.
        "worst" is the image most wrongly placed: the anomalous one that most normal ones pass, or the normal one that
        passes most anomalous ones, whichever share is larger. In a category without anomalous images the three are the
        normal images with the lowest, middle and highest score. Fewer than three images leave ranks out.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels).astype(bool)
    defective, normal = np.flatnonzero(labels), np.flatnonzero(~labels)
    if defective.size:
        order = defective[np.argsort(-scores[defective], kind="stable")]
        worst = order[-1]
        if normal.size:
            highest = normal[np.argmax(scores[normal])]
            missed, alarmed = (scores[normal] >= scores[worst]).mean(), (scores[defective] <= scores[highest]).mean()
            worst = highest if alarmed > missed else worst
    else:
        order = normal[np.argsort(scores[normal], kind="stable")]
        worst = order[-1] if order.size else None
    if not order.size:
        return {}
    ranks: dict[Rank, Any] = {"best": order[0], "median": order[(order.size - 1) // 2], "worst": worst}
    return {rank: int(i) for n, (rank, i) in enumerate(ranks.items()) if i not in list(ranks.values())[:n]}


def notes_of(report: Mapping[str, Any]) -> list[str]:
    """What a report says about its results and its baseline's, each sentence once."""
    runs = (report, report.get("baseline") or {})
    return list(dict.fromkeys(note for run in runs for note in run.get("notes", ())))


def validate_report(report: Mapping[str, Any]) -> None:
    """Check a dictionary against the format of report.json (DESIGN 6).

    Required: `protocol` (name), `config`, `environment` {`versions`, `device`, `seconds`, `images_per_second`, and
    `timed`, what the rate counts, unless it is null}, `data` {`source`, `counts` {category: {name: number}}, `licence`,
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
    problems += [f"{at}{name} = {number}: needs to lie between 0 and 1" for name, number in outside]
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
            problems.append(f"{at}{name}: missing; it needs to be {words}")


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
        problems.append(f"{at} = {value!r}: needs to be {words}")
    return good


def _check_json(value: Any, at: str, problems: list[str]) -> None:
    """Everything json.dumps would refuse, or write as NaN, with the place where it is."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                problems.append(f"{at}: key {key!r} needs to be text")
            _check_json(item, f"{at}.{key}", problems)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_json(item, f"{at}[{i}]", problems)
    elif isinstance(value, float) and not math.isfinite(value):
        problems.append(f"{at} = {value}: needs to be finite, or null where it is undefined")
    elif not isinstance(value, str | int | float | bool | None):
        problems.append(f"{at}: {type(value).__name__} is not a JSON value; convert it to a plain Python one")
