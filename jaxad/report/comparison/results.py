"""Reports as they lie in folders: found below what a user names, read, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.config import TrainConfig
from jaxad.errors import DataError, JaxadError, ReportError
from jaxad.features import FEATURES
from jaxad.inference.steps import DEPTH, FOLDER, folders_in, is_run
from jaxad.io.json_files import LIST, json_text, read_object
from jaxad.metrics import IMAGE_METRICS, protocol, protocol_names
from jaxad.metrics.resampling import resampled
from jaxad.metrics.rules import EXACT, MetricRules
from jaxad.report.image_list import NAME, ImageScores, read_scores
from jaxad.report.schema import validate_report

REPORT = "report.json"
_NOISE = ("threshold", "published", "seed")
"""What a report says of how it was made that makes no other method; thresholds change no metric."""


@dataclass(frozen=True)
class Result:
    """One report: a detector of one seed on the test images.

    Attributes:
        file: its report.json.
        report: the content.
        images: by category, the images and their scores; empty where the report came without images.csv.
    """

    file: Path
    report: Mapping[str, Any]
    images: Mapping[str, ImageScores] = field(default_factory=dict)

    @property
    def system(self) -> str:
        """Registered name of the detector."""
        return str(self.report["config"].get("system", "detector"))

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return self.report["protocol"]

    @property
    def classes(self) -> Mapping[str, Mapping[str, Any]]:
        """Metrics by category."""
        return self.report["classes"]

    @property
    def rules(self) -> MetricRules:
        """Those of the protocol; the exact ones where nobody here knows it."""
        return protocol(self.protocol).rules if self.protocol in protocol_names() else EXACT

    @cached_property
    def seed(self) -> str:
        """The seed of all that was drawn; several ones by commas, "" where nothing was."""
        return ",".join(sorted({str(seed) for seed in _seeds(self.report["config"])}))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that makes it this method and no other, but for the seed."""
        config = {name: _seedless(value) for name, value in self.report["config"].items() if name not in _NOISE}
        if isinstance(train := config.get("train"), dict):
            config["train"] = {name: value for name, value in train.items() if name not in TrainConfig.RESOURCES}
        if isinstance(data := config.get("data"), dict):
            # Where the images lie makes no other method; which ones a seed draws does not either.
            drawn = data.get("shots") or data.get("tiles", {}).get("per_image", "all") != "all"
            kept = ("shots", "reference_lists", "tiles", *(() if drawn else ("sha256",)))
            config["data"] = {name: data[name] for name in kept if name in data}
        if isinstance(captions := config.get("test_captions"), dict):
            config["test_captions"] = {name: captions.get(name) for name in ("kind", "missing")}
        return config

    @property
    def identity(self) -> str:
        """The same for reports that differ in the seed alone."""
        return json_text([self.protocol, self.settings])


def find_reports(places: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Reports, each once, and runs that have none.

    A place is a report.json, the folder of one, a run, or a folder that holds such folders. The report of a run lies in
    it, or at the same place in a folder beside it, or beside the given one, of its name and `-report`.

    Args:
        places: as given.

    Returns:
        The report.json files, and the workdirs of runs without report, in the order of the places.

    Raises:
        DataError: places that do not exist, or in which there is neither; all are named.
    """
    reports: dict[Path, None] = {}
    runs: dict[Path, None] = {}
    empty = []
    for place in places:
        found = [place] if place.is_file() else _below(place, DEPTH)
        if not found:
            what = "holds no report.json and no run" if place.is_dir() else "does not exist"
            empty.append(f"{place}: {what}; give folders that `jaxad evaluate --out` wrote, or runs with such a report")
        for path in found:
            if path.is_dir():
                path = _beside(place, path) or path
            (runs if path.is_dir() else reports)[path] = None
    if empty:
        raise DataError("\n  ".join(["these cannot be compared:", *empty]) if len(empty) > 1 else empty[0])
    return list(reports), list(runs)


def read_results(files: Sequence[Path], *, only: str | None = None) -> list[Result]:
    """The reports in these files; those that sum up several seeds are left out, their parts are taken.

    Args:
        files: report.json of each.
        only: name of a protocol; reports of others are left out. None for all.

    Raises:
        ReportError: files that are no reports, or whose images.csv is of another one; all are named.
    """
    results, problems = [], []
    for file in files:
        try:
            result = _read(file)
        except JaxadError as error:
            problems.append(str(error))
            continue
        several = isinstance(result.report["config"].get("seed"), list)
        if not several and only in (None, result.protocol):
            results.append(result)
    if problems:
        raise ReportError("\n".join(problems))
    return results


def _below(folder: Path, depth: int) -> list[Path]:
    """Reports in a folder, and runs without one."""
    found = [folder / REPORT] if (folder / REPORT).is_file() else []
    for inner in folders_in(folder) if depth else ():
        found += [] if inner.name in (FOLDER, FEATURES) else _below(inner, depth - 1)
    return found or ([folder] if is_run(folder) else [])


def _beside(place: Path, run: Path) -> Path | None:
    """The report of a run that holds none, None where there is none."""
    reports = (Path(f"{run}-report"), Path(f"{place}-report") / run.relative_to(place))
    return next((folder / REPORT for folder in reports if (folder / REPORT).is_file()), None)


def _read(file: Path) -> Result:
    report = read_object(file, size=LIST, error=ReportError)
    try:
        validate_report(report)
    except ReportError as error:
        raise ReportError(f"{file}: {error}") from error
    images = file.with_name(NAME)
    result = Result(file, report, read_scores(images) if images.is_file() else {})
    if result.images and (strangers := list(_strangers(result))):
        raise ReportError(f"{images}: is not that of report.json ({'; '.join(strangers)}); evaluate again")
    return result


def _strangers(result: Result) -> Iterator[str]:
    """In what images.csv and report.json differ."""
    for name, metrics in result.classes.items():
        images = result.images.get(name)
        if images is None:
            yield f"no images of {name}"
            continue
        for metric in IMAGE_METRICS:
            if metrics[metric] is not None:
                once = np.ones((1, len(images.labels)))
                (value,) = resampled(metric, images.scores, images.labels, once, result.rules)
                if not abs(value - metrics[metric]) < 1e-6:
                    yield f"{metric} of {name} is {value:.6f} there, {metrics[metric]:.6f} here"


def _seeds(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "seed" and inner is not None:
                yield inner
            else:
                yield from _seeds(inner)


def _seedless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _seedless(inner) for name, inner in value.items() if name not in _NOISE}
    return value
