"""What the tables of CLIPFusion share: each row is a setting and a number of shots, and all are evaluated alike.

Not an experiment itself; `table1.py` and its neighbors say which rows there are and what was published.

Each run leaves report.json, report.html and images.csv under --out/DATA/ROW/seed-N, and the means and standard
deviations over the seeds under --out/DATA/ROW; of one category alone, DATA-CATEGORY takes the place of DATA. All runs
of a command come out of one pass over the test images (`fused_rows.py`). A run whose report is there with the same
settings is not repeated; since the networks' files may have changed in the meantime, the hashes of the weights that it
was made with are printed.
The paper's Tables 14 to 21, by category, are the `classes` of the reports of `table1.py`; `table14.py` shows them.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import jaxad
from experiments.clipfusion.fused_rows import Run, groups, score_runs, widest
from experiments.records import Printed, keep
from experiments.rows import DataOptions, Mean, head, percent, slug
from jaxad.config import CLIPFusionConfig, CLIPFusionPreset, to_json
from jaxad.data import DataSet
from jaxad.detectors.clipfusion.networks import FusionNetworks, load_networks, sources
from jaxad.errors import ConfigError
from jaxad.inference.evaluation import Scored, score
from jaxad.io.progress import Reporter
from jaxad.metrics import METRICS as REPORTED
from jaxad.report.comparison.methods import combined, deviation
from jaxad.report.page import write_report
from jaxad.report.published import Published, misfits
from jaxad.types import Source

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "aupro")
"""Columns, macro means over the categories: classification (AUROC, AUPR), segmentation (AUROC, AUPRO)."""

BENCHMARKS = ("mvtec_ad", "visa")
PROTOCOL = "winclip"
REPORT = "report.json"

Values = tuple[float | None, ...]
Tables = Mapping[str, Mapping[str, Values]]
"""By benchmark and row, percent in the order of `METRICS`; None where the paper says nothing."""


@dataclass(frozen=True)
class RowOptions(DataOptions):
    """Data, networks and seeds of the runs of a table."""

    out: Path
    """Folder of the runs."""
    data: tuple[str, ...] = ("mvtec_ad", "visa")
    """Each a prepared data set or `folder:PATH` of categories in MVTec layout. Published numbers beside it are those of
    the benchmark whose name it contains, else those of MVTec-AD."""
    categories: tuple[str, ...] | None = None
    """Only these; all if not given."""
    clip: str | None = None
    """Folder, file or id of CLIP; the preset's if not given."""
    diffusion: str | None = None
    """Folder, file or id of Stable Diffusion; the preset's if not given."""
    model: CLIPFusionConfig = field(default_factory=CLIPFusionConfig)
    """Settings that differ from the defaults here apply to each row whose preset and changes leave them alone."""
    shots: tuple[int, ...] | None = None
    """Only rows of so many shots; all if not given."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Draws of the references; rows without references run once."""
    reference_lists: Path | None = None
    """Folder of published choices, CATEGORY/selected_samples_per_run.txt, in place of the draws; seeds number them."""
    protocol: str = PROTOCOL
    """Evaluation protocol."""
    batch_size: int = 8
    """Images at once."""
    together: int = 120
    """Runs that share a pass over the images, at most. Their reports are written at its end, so that with fewer less is
    lost where a command is stopped, and more passes are made. They take about 4 MB x runs x categories of memory, 7 GB
    for 120 runs on 15 categories."""


@dataclass(frozen=True)
class MVTecOptions(RowOptions):
    """The options of the other tables, on MVTec-AD alone."""

    data: tuple[str, ...] = ("mvtec_ad",)


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        name: as in `Published`.
        preset: of CLIPFusionConfig.
        shots: references of each category.
        changes: fields of CLIPFusionConfig that differ from the preset.
        category: the only one that is evaluated, None for all.
    """

    name: str
    preset: CLIPFusionPreset | str = "default"
    shots: int = 1
    changes: Mapping[str, Any] = field(default_factory=dict)
    category: str | None = None

    def config(self, options: RowOptions) -> Any:
        """Its settings under these options."""
        default, preset = CLIPFusionConfig(), CLIPFusionConfig.preset(self.preset)
        names = [setting.name for setting in fields(CLIPFusionConfig)]
        free = [name for name in names if getattr(preset, name) == getattr(default, name)]
        given = {name: getattr(options.model, name) for name in free}
        given |= {name: value for name in ("clip", "diffusion") if (value := getattr(options, name)) is not None}
        return CLIPFusionConfig.preset(self.preset, **{**given, **self.changes})


class TrainedRow(Row, ABC):
    """A row of a detector that is trained on its references; each of its runs sees the test images by itself."""

    system: ClassVar[str]

    @abstractmethod
    def networks(self, config: Any) -> CLIPFusionConfig:
        """What names the networks that such settings need."""

    @abstractmethod
    def fitted(self, config: Any, networks: FusionNetworks, source: Source, workdir: Path, seed: int) -> Any:
        """The detector, once it is trained on these references."""


def run(
    options: RowOptions,
    rows: Sequence[Row],
    published: Tables,
    source: str,
    spread: Tables | None = None,
    beside: Tables | None = None,
) -> dict[str, dict[str, Mean]]:
    """Runs each row on each data set and prints ours beside the published values.

    Args:
        options: of the command line.
        rows: in the order in which they are printed.
        published: the paper's means.
        source: the table.
        spread: the paper's standard deviations.
        beside: published rows that are not run here, printed behind the others where some published row is.

    Returns:
        Means over the seeds of each metric, 0..1, by data set and row.
    """
    runner, found = Runner(options), {}
    print(f"{'data':16} {'row':28} {'':14} {head(METRICS)}")
    for data in options.data:
        benchmark = benchmark_of(data)
        found[data], fits = {}, False
        pairs = chosen(runner, data, rows, published, source)
        runner.complete(data, pairs)
        for row, known in pairs:
            reports = runner.reports(data, row)
            merged = over_seeds(reports)
            write_report(runner.folder(data, row), merged)
            found[data][row.name] = {name: merged["mean"][name] for name in METRICS}
            _print(data, row.name, "ours", [merged["mean"][name] for name in METRICS])
            if len(reports) > 1:
                _print("", "", "std", [merged["mean"]["std"][name] for name in METRICS])
            if known is not None and (said := misfits((known, report) for report in reports)):
                print(f"{benchmark:16} {'':28} {'published':14} left out: {said}", flush=True)
                continue
            fits = fits or known is not None
            for title, values in (("published", published), ("published std", spread or {})):
                if line := values.get(benchmark, {}).get(row.name):
                    _print_published(benchmark, "", title, line)
        for name, line in (beside or {}).get(benchmark, {}).items() if fits else ():
            _print_published(benchmark, name, "published", line)
    return found


def benchmark_of(data: str) -> str:
    """The benchmark whose published numbers stand beside those of a data set."""
    return next((name for name in BENCHMARKS if name in data), BENCHMARKS[0])


def chosen(
    runner: Runner, data: str, rows: Sequence[Row], published: Tables, source: str
) -> list[tuple[Row, Published | None]]:
    """The rows of a table that the options ask for on a data set, each with what was published for it."""
    options, benchmark = runner.options, benchmark_of(data)
    printed = Printed(f"CLIPFusion, {source}", PROTOCOL, METRICS, published.get(benchmark, {}), benchmark)
    return [
        (row, printed.row(row.name, "/".join(filter(None, (benchmark, row.category)))))
        for row in rows
        if options.shots is None or row.shots in options.shots
        if row.category is None or row.category in runner.dataset(data).categories
    ]


def wanted(runner: Runner, data: str, table: Any, source: str) -> list[tuple[Row, Published | None]]:
    """The same of a module with `ROWS` and `PUBLISHED`."""
    return chosen(runner, data, table.ROWS, table.PUBLISHED, source)


def of_images(published: Tables, rows: Sequence[Row]) -> dict[str, dict[str, Values]]:
    """The classification columns of the published values of some rows."""
    return images_alone(published, [row.name for row in rows])


def images_alone(published: Tables, names: Iterable[str] | None = None) -> dict[str, dict[str, Values]]:
    """The classification columns of the rows of those names, None for all that have some."""
    wanted = None if names is None else set(names)
    return {
        benchmark: {
            name: (*values[:2], None, None)
            for name, values in lines.items()
            if (values[0] is not None if wanted is None else name in wanted)
        }
        for benchmark, lines in published.items()
    }


def over_seeds(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report with means over the reports of several seeds, and their standard deviations as `std` (n - 1).

    A metric that is undefined for one seed is undefined.
    """
    classes = {
        name: {**reports[0]["classes"][name], **_joined([report["classes"][name] for report in reports])}
        for name in reports[0]["classes"]
    }
    seeds = [report["config"]["seed"] for report in reports]
    return {
        **reports[0],
        "config": {**reports[0]["config"], "seed": seeds},
        "mean": _joined([report["mean"] for report in reports]),
        "classes": classes,
    }


class Runner:
    """Makes or reads the reports of rows; networks and data are loaded when they are needed."""

    def __init__(self, options: RowOptions):
        self.options, self._reporter = options, Reporter()
        self._networks: tuple[Any, Any] = (None, None)
        self._datasets: dict[tuple, DataSet] = {}

    def folder(self, data: str, row: Row) -> Path:
        """Of the runs of a row."""
        return self.options.out / slug("/".join(filter(None, (data, row.category)))) / slug(row.name)

    def complete(self, data: str, rows: Iterable[tuple[Row, Published | None]]) -> None:
        """Makes all reports of rows that earlier runs have not left, together.

        Args:
            data: data set.
            rows: each with what was published for it.
        """
        missing: dict[Run, list[_Record]] = {}
        alone: list[tuple[TrainedRow, _Record]] = []
        for row, published in rows:
            for record in self._records(data, row, published):
                report = record.read(self.options.protocol, self.dataset(data, row.category).counts)
                if report is None and isinstance(row, TrainedRow):
                    alone.append((row, record))
                    continue
                if report is None:
                    missing.setdefault(record.run, []).append(record)
                    continue
                weights = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", report["config"]["weights"])
                self._reporter.say(f"{record.folder / REPORT}: kept from before; SHA-256 of its weights: {weights}")
        for runs in groups(list(missing), self.options.together):
            dataset, networks = self.dataset(data, runs[0].category), self._loaded(widest(runs))
            names = list(dict.fromkeys(record.row.name for run in runs for record in missing[run]))
            title = names[0] if len(names) == 1 else f"{len(runs)} runs of {len(names)} rows"
            with self._reporter.images(title, len(dataset.test)) as progress:
                scored = score_runs(
                    runs,
                    networks,
                    dataset,
                    protocol=self.options.protocol,
                    lists=self.options.reference_lists,
                    batch_size=self.options.batch_size,
                    progress=progress,
                )
            for run, found in zip(runs, scored, strict=True):
                weights = networks.of(run.config.models).sha256
                for record in missing[run]:
                    record.write(found, dataset, weights)
        for row, record in alone:
            self._train(data, row, record)

    def _train(self, data: str, row: TrainedRow, record: _Record) -> None:
        options, run, dataset = self.options, record.run, self.dataset(data, row.category)
        networks = self._loaded(row.networks(run.config))
        references = dataset.train.per_class(run.shots, run.seed, lists=options.reference_lists)
        detector = row.fitted(run.config, networks, references, record.folder, run.seed)
        with self._reporter.images(f"{row.name}, seed {run.seed}", len(dataset.test)) as progress:
            how = {"protocol": options.protocol, "batch_size": options.batch_size, "progress": progress}
            record.write(score(detector, dataset, **how), dataset, networks.sha256)

    def reports(self, data: str, row: Row) -> list[dict[str, Any]]:
        """One for each seed, as `complete` or earlier commands left them.

        Raises:
            ConfigError: seeds of different weights.
        """
        counts = self.dataset(data, row.category).counts
        found = [record.read(self.options.protocol, counts) for record in self._records(data, row, None)]
        reports = [report for report in found if report is not None]
        assert len(reports) == len(found), f"{self.folder(data, row)}: not completed"
        if len({report["config"]["weights"] for report in reports}) > 1:
            raise ConfigError(
                f"{self.folder(data, row)}: the seeds were run with different weights, see `weights` in their "
                "report.json; delete the folders seed-N of the old ones, and run this again"
            )
        return reports

    def _records(self, data: str, row: Row, published: Published | None) -> list[_Record]:
        options, config = self.options, row.config(self.options)
        seeds = options.seeds if row.shots else options.seeds[:1]
        lists = None if options.reference_lists is None else str(options.reference_lists)
        return [
            _Record(
                self.folder(data, row) / f"seed-{seed}",
                row,
                Run(config, row.shots, seed if row.shots else 0, row.category),
                {"row": row.name, "shots": row.shots, "seed": seed, "reference_lists": lists},
                published,
            )
            for seed in seeds
        ]

    def _loaded(self, config: CLIPFusionConfig) -> FusionNetworks:
        wanted = (sources(config), config.precision)
        if self._networks[0] != wanted:
            # The old ones go first: two Stable Diffusions might not fit at once.
            self._networks = (None, None)
            self._networks = (wanted, load_networks(config))
        return self._networks[1]

    def dataset(self, data: str, category: str | None = None) -> DataSet:
        """The data set, of all categories that the options name or of one."""
        options = self.options
        if (data, category) not in self._datasets:
            categories = options.categories if category is None else (category,)
            self._datasets[data, category] = options.load(data, categories=categories)
        return self._datasets[data, category]


@dataclass(frozen=True)
class _Record:
    """Where the report of a run is, and what it says of the run."""

    folder: Path
    row: Row
    run: Run
    provenance: Mapping[str, Any]
    published: Published | None

    def read(self, protocol: str, counts: Mapping[str, Any]) -> dict[str, Any] | None:
        """The report, None where there is none of this run."""
        if not (file := self.folder / REPORT).is_file():
            return None
        system = self.row.system if isinstance(self.row, TrainedRow) else jaxad.CLIPFusion.name
        wanted = {"system": system, "model": to_json(self.run.config), "threshold": None}
        wanted = json.loads(json.dumps({**wanted, **self.provenance}))
        report = json.loads(file.read_text("utf-8"))
        same = {name: report["config"].get(name) for name in wanted} == wanted
        return report if same and report["protocol"] == protocol and report["data"]["counts"] == counts else None

    def write(self, scored: Scored, dataset: DataSet, weights: str) -> None:
        """Leaves the report of a finished pass."""
        provenance = {**self.provenance, "preset": self.row.preset, "weights": weights}
        keep(self.folder, scored, dataset, published=self.published, provenance=provenance)


def _joined(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of the metrics of one category (or of all) over seeds, and `std` where there are several."""
    columns = {name: [result[name] for result in results] for name in REPORTED}
    joined: dict[str, Any] = {name: combined(values) for name, values in columns.items()}
    reasons = {}
    for name, values in columns.items():
        if None in values:
            first = results[values.index(None)]
            reasons[name] = first.get("undefined", {}).get(name, "undefined for every category")
    if reasons or "undefined" in results[0]:
        joined["undefined"] = reasons
    if len(results) > 1:
        joined["std"] = {name: deviation(values) for name, values in columns.items()}
    return joined


def _print_published(benchmark: str, row: str, title: str, values: Values) -> None:
    _print(benchmark, row, title, [None if value is None else value / 100 for value in values])


def _print(data: str, row: str, title: str, values: Sequence[float | None]) -> None:
    print(f"{Path(data).name:16} {row:28} {title:14} {percent(values)}", flush=True)
