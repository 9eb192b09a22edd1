"""Not published: accuracy, time, memory and disk of one model for all as its categories grow, from 1 to 160.

Command (Linux; hours of two CPUs):
    python -m experiments.scaling.study --out runs/scaling --real /data/parts

Expected: memory of training and evaluation and time per image level from 4 to 160 synthetic categories; on the real
ones of --real, one model for all beside one for each category. It is what DPDiff-AD's Table 2 and Figure 1 show of
Real-IAD Variety, on data that are at hand, with what it costs. Subsets are nested, the first categories in alphabetical
order. Every command runs as a user would run it, in a process of its own: `jaxad prepare`, `fit`, `evaluate`. Run the
same command again to go on: finished ones are kept in the folder `records`. `page.py` writes scaling.md, scaling.svg
and scaling.json.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.scaling import page
from experiments.scaling.rows import Records
from experiments.scaling.synthetic_categories import ImageCounts, category_names, write_categories
from jaxad.detector import Trainable, detectors
from jaxad.errors import ConfigError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.signals import listening
from jaxad.metrics import METRICS

DATA = "anomaly_folder"
"""What a folder of one's own is called once it is prepared."""
SINGLE = "dpdiff"
"""The detector of which each real category has one, too."""
PRESET = "small"
"""Of detectors that are named without one."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """Measure how detectors scale with the number of categories."""

    out: Path
    """Folder of records, tables and curves, and while it runs of data and runs; features on disk take 0.2 MB for each
    image of 224 pixels of DPDiff-AD, 0.4 MB of Dinomaly."""
    real: tuple[Path, ...] = ()
    """Folders of real categories in MVTec layout; none of them if not given."""
    real_counts: tuple[int, ...] = (1, 2, 4, 8)
    """Real categories of each subset; at most as many as there are."""
    real_detectors: tuple[str, ...] = ("dpdiff", "patch-bank", "dinomaly")
    """What is fitted on real categories; DETECTOR:PRESET for another preset than "small"."""
    real_steps: int = 200
    """Optimizer steps of each training on real categories, of one model for all and of those for one category alike."""
    one_each: bool = True
    """Whether DPDiff-AD is trained for each real category alone, too."""
    counts: tuple[int, ...] = (4, 30, 60, 100, 160)
    """Synthetic categories of each subset; none if empty."""
    detectors: tuple[str, ...] = ("dpdiff", "patch-bank")
    """What is fitted on synthetic categories, as of `real_detectors`."""
    steps: int = 200
    """Optimizer steps of each training on synthetic categories."""
    images: ImageCounts = field(default_factory=ImageCounts)
    """Images of each synthetic category."""
    backbone: str | None = None
    """Folder or id of the backbone; that of the preset "small", "embedded", if not given."""
    image_size: int = 224
    """Side of the square input in pixels."""
    compilation_cache: bool = False
    """Whether programs that one command has compiled serve the next; else all commands compile, as the first one would,
    and differ in their categories alone."""
    machine: str = ""
    """What to call this machine on the page; its number of processors if not given."""

    def problems(self) -> list[str]:
        """What cannot work."""
        known = detectors.names()
        named = {"detectors": self.detectors, "real_detectors": self.real_detectors}
        problems = []
        for key, names in named.items():
            for name, preset in map(parted, names):
                if name not in known:
                    problems.append(f"{key}: no detector {name}")
                elif preset not in (presets := detectors.get(name).config_class.PRESETS):
                    problems.append(f"{key}: {name} has no preset {preset}; it has {', '.join(presets)}")
        for key, counts in (("counts", self.counts), ("real_counts", self.real_counts)):
            if sorted(set(counts)) != list(counts) or any(count < 1 for count in counts):
                problems.append(f"{key} = {counts}: must be ascending numbers of categories from 1")
        return problems


class Runs:
    """The commands of a study on nested subsets of categories.

    Args:
        options: of the study.
    """

    def __init__(self, options: Study):
        self._options = options
        # jax keeps programs where its own variable says so, whatever jaxad's flag says.
        unset = () if options.compilation_cache else ("JAX_COMPILATION_CACHE_DIR",)
        self._records = Records(options.out / "records", unset=unset)

    def rows(
        self,
        part: str,
        source: Path,
        names: Sequence[str],
        fitted: Sequence[str],
        steps: int,
        *,
        one_each: bool = False,
    ) -> list[dict[str, Any]]:
        """Fits and evaluates each detector on the categories `names` of a folder, prepared in a place of their own.

        Returns:
            For each detector `part`, `names`, `detector`, and the records `prepare`, `fit` and `evaluate`.
        """
        label = f"{part}-{len(names):03d}"
        data = self._options.out / "prepared" / label
        models = [(_run_name(label, detector), detector, tuple(names)) for detector in fitted]
        models += [(f"{label}-one-{name}", SINGLE, (name,)) for name in names if one_each]
        waiting = [model for model in models if not self._is_done(*model, data, steps)]
        made = self._prepare(label, source, names, data, again=bool(waiting))
        found = {model[0]: self._model(*model, data, steps) for model in models}
        shutil.rmtree(data, ignore_errors=True)
        common = {"part": part, "prepare": made}
        rows = [
            {**common, "names": list(names), "detector": detector, **found[_run_name(label, detector)]}
            for detector in fitted
        ]
        singles = [found[f"{label}-one-{name}"] for name in names if one_each]
        counts = [count for count in self._options.real_counts if count <= len(singles)]
        # What each category's own model does does not depend on how many others there are.
        return rows + [
            {**common, "names": list(names[:count]), "detector": f"{SINGLE}, one each", **joined(singles[:count])}
            for count in counts
        ]

    def _prepare(self, label: str, source: Path, names: Sequence[str], data: Path, *, again: bool) -> dict[str, Any]:
        name, words = (
            f"{label}-prepare",
            ["prepare", DATA, "--source", source, "--data-dir", data, "--categories", *names],
        )
        if again and not data.exists():
            self._records.forget(name)
        return self._records.run(name, words, made=data)

    def _words(
        self, name: str, detector: str, categories: Sequence[str], data: Path, steps: int
    ) -> tuple[Path, Path, list[str | Path], list[str | Path]]:
        """Workdir, folder of the report, and the commands that fill them."""
        options, runs = self._options, self._options.out / "runs"
        workdir, report = runs / name, runs / f"{name}-report"
        detector, preset = parted(detector)
        common = ["--data", DATA, "--data-dir", data, "--categories", *categories]
        common += ["--compilation-cache", "on" if options.compilation_cache else "off"]
        fit = ["fit", detector, *common, "--workdir", workdir, "--preset", preset, "--image-size", options.image_size]
        if options.backbone is not None:
            fit += ["--model.backbone", options.backbone]
        if issubclass(detectors.get(detector), Trainable):
            # Memory must not grow with the images.
            fit += ["--train.steps", steps, "--train.cache", "disk"]
        evaluate = ["evaluate", *common, "--checkpoint", workdir, "--out", report]
        return workdir, report, list(map(str, fit)), list(map(str, evaluate))

    def _is_done(self, name: str, detector: str, categories: Sequence[str], data: Path, steps: int) -> bool:
        *_, fit, evaluate = self._words(name, detector, categories, data, steps)
        stages = (("fit", fit), ("evaluate", evaluate))
        return all(self._records.get(f"{name}-{stage}", words) is not None for stage, words in stages)

    def _model(
        self, name: str, detector: str, categories: Sequence[str], data: Path, steps: int
    ) -> dict[str, dict[str, Any]]:
        """The records `fit` and `evaluate` of one model; of its run nothing else is left."""
        workdir, report, fit, evaluate = self._words(name, detector, categories, data, steps)
        if not self._is_done(name, detector, categories, data, steps) and not workdir.exists():
            self._records.forget(f"{name}-fit")

        def fitted() -> dict[str, Any]:
            return {"step_seconds": step_seconds(workdir / "metrics.csv")}

        def evaluated() -> dict[str, Any]:
            return read_report(json.loads((report / "report.json").read_text("utf-8")))

        records = {
            "fit": self._records.run(f"{name}-fit", fit, made=workdir, watch=workdir / "features", read=fitted),
            "evaluate": self._records.run(f"{name}-evaluate", evaluate, made=report, read=evaluated),
        }
        for folder in (workdir, report):
            shutil.rmtree(folder, ignore_errors=True)
        return records


def parted(name: str) -> tuple[str, str]:
    """Detector and preset of DETECTOR or DETECTOR:PRESET."""
    detector, _, preset = name.partition(":")
    return detector, preset or PRESET


def _run_name(label: str, detector: str) -> str:
    """What a detector's run is called among its files."""
    return f"{label}-{detector.replace(':', '-')}"


def step_seconds(file: Path) -> float | None:
    """Seconds of a training step from metrics.csv, without those before its first row; None of fewer than two rows."""
    rows = list(csv.DictReader(file.read_text("utf-8").splitlines())) if file.is_file() else []
    if len(rows) < 2:
        return None
    (first, began), (last, ended) = ((int(row["step"]), float(row["seconds"])) for row in (rows[0], rows[-1]))
    return (ended - began) / (last - first)


def read_report(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the study keeps of report.json: `images_per_second`, numbers of images, metrics by category."""
    counts = report["data"]["counts"].values()
    tested = sum(own[key] for own in counts for key in ("test_normal", "test_anomalous"))
    return {
        "protocol": report["protocol"],
        "images_per_second": report["environment"]["images_per_second"],
        "trained": sum(own.get("train", 0) for own in counts),
        "tested": tested,
        "classes": {name: {metric: own[metric] for metric in METRICS} for name, own in report["classes"].items()},
    }


def joined(singles: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The records of several models, one after the other, as those of one: sums of time and disk, the most memory."""
    found: dict[str, dict[str, Any]] = {}
    for stage in ("fit", "evaluate"):
        records = [single[stage] for single in singles]
        found[stage] = {key: sum(record[key] for record in records) for key in ("seconds", "cpu_seconds", "disk")}
        found[stage] |= {key: max(record[key] for record in records) for key in ("memory", "resident", "watched")}
        found[stage]["date"] = max(record["date"] for record in records)
    steps = [own for single in singles if (own := single["fit"]["step_seconds"]) is not None]
    found["fit"]["step_seconds"] = sum(steps) / len(steps) if steps else None
    evaluated = [single["evaluate"] for single in singles]
    found["evaluate"] |= {key: sum(record[key] for record in evaluated) for key in ("trained", "tested")}
    found["evaluate"]["protocol"] = evaluated[0]["protocol"]
    # Too few images to be timed give no rate.
    rates = [(record["tested"], record["images_per_second"]) for record in evaluated if record["images_per_second"]]
    spent = sum(images / rate for images, rate in rates)
    found["evaluate"]["images_per_second"] = sum(images for images, _ in rates) / spent if rates else None
    found["evaluate"]["classes"] = {name: own for record in evaluated for name, own in record["classes"].items()}
    return found


def linked(folders: Sequence[Path], out: Path) -> list[str]:
    """Makes `out` a folder of links to the categories of all folders; returns their names in alphabetical order.

    Raises:
        ConfigError: two categories of one name, or none.
    """
    places = [place.resolve() for folder in folders for place in folder.iterdir() if (place / "train").is_dir()]
    names = sorted(place.name for place in places)
    if not places or len(set(names)) < len(names):
        raise ConfigError(f"real = {' '.join(map(str, folders))}: need categories with train/good, of different names")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for place in places:
        (out / place.name).symlink_to(place)
    return names


def main(options: Study) -> list[Path]:
    """Runs what is not finished yet and writes the page; returns its files.

    Raises:
        ConfigError: impossible options.
        FailedError: a command fails; its log is named.
    """
    if problems := options.problems():
        raise ConfigError("\n  ".join(["the study cannot be made:", *problems]))
    runs, rows = Runs(options), []
    if options.real:
        names = linked(options.real, options.out / "real")
        counts = [count for count in options.real_counts if count <= len(names)]
        for count in counts:
            each = options.one_each and count == counts[-1]
            how = (options.real_detectors, options.real_steps)
            rows += runs.rows("real", options.out / "real", names[:count], *how, one_each=each)
            _keep(options, rows)
    if options.counts:
        names, root = category_names(options.counts[-1]), options.out / "synthetic"
        write_categories(root, names, options.images)
        for count in options.counts:
            rows += runs.rows("synthetic", root, names[:count], options.detectors, options.steps)
            _keep(options, rows)
    return page.main(page.Page(options.out))


def _keep(options: Study, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes the rows so far, which `page.py` reads."""
    about = {
        "command": _command(options),
        "steps": {"real": options.real_steps, "synthetic": options.steps},
        "image_size": options.image_size,
        "backbone": options.backbone and Path(options.backbone).name,
        "machine": options.machine or f"{len(os.sched_getaffinity(0))} processors",
    }
    write_whole(options.out / page.ROWS, json_text({**about, "rows": list(rows)}, indent=1) + "\n")


def _command(options: Study) -> str:
    """The command: what is not as it would be anyway, and no paths of this machine."""
    words = ["python -m experiments.scaling.study", "--out", "scaling"]
    given = [(name, value) for name, value in _changed(options) if name not in ("out", "machine")]
    for name, value in given:
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
            continue
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{flag}", *(Path(each).name if name in ("real", "backbone") else str(each) for each in values)]
    return " ".join(words)


def _changed(options: Any) -> Iterator[tuple[str, Any]]:
    """Names and values of a dataclass's fields that differ from their defaults; PART.NAME within one of them."""
    for own in fields(options):
        value = getattr(options, own.name)
        if is_dataclass(value):
            yield from ((f"{own.name}.{name}", inner) for name, inner in _changed(value))
        elif value != own.default:
            yield own.name, value


if __name__ == "__main__":
    # Asked to end, it first ends the command that it runs.
    with listening():
        print(*main(tyro.cli(Study, description=__doc__)), sep="\n")
