"""Evaluation: predictions through a protocol into metrics, and everything the report shows."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import jax
import numpy as np

from jaxad import metrics
from jaxad.config import to_json
from jaxad.data import DataSet
from jaxad.detector import Detector
from jaxad.errors import ConfigError, DataError, Problem
from jaxad.features import FeatureCache
from jaxad.inference.decisions import Decision, counted, decide, mistakes
from jaxad.inference.maps import heat_scale, kept_to
from jaxad.inference.predictor import Output, Predictor
from jaxad.inference.results import Case, Curves, Evaluation, PrototypeFigure, Rank, Shown, TsneInput, choose_cases
from jaxad.inference.threshold import POOLED, Threshold
from jaxad.inference.tiled import Resolution
from jaxad.io.pictures import shrink
from jaxad.io.text import apart, visible
from jaxad.types import Source

PICTURED = 60
"""False alarms, and misses, that the page has pictures of at most."""
SHOWN = 320
"""Longer side of these pictures in pixels at most."""


class Scored:
    """An evaluation in progress: metrics of every category, and the few images that figures need.

    Attributes:
        detector, source, protocol: as given to `evaluate`.
        classes: `metrics.ClassMetrics` by category.
        threshold: the rule that images are decided by, None without one.
        decisions: what came of each image, in the order of the source.
        predictor: the compiled detector.
        resolution: at which maps and masks of tiles are compared.
        seconds, images: of the inference alone, without the first batch, which compiles, and the second, which is under
            way when the first is done.
    """

    def __init__(self, detector: Detector, source: Source, predictor: Predictor, threshold: Threshold | None = None):
        self.detector, self.source, self.predictor, self.threshold = detector, source, predictor, threshold
        self.decisions: list[Decision] = []
        self._content: list[str] = []
        self.protocol = predictor.protocol
        self.classes = {name: self.protocol.class_metrics() for name in source.categories}
        self.indices: dict[str, list[int]] = {name: [] for name in source.categories}
        self.normal_values: dict[str, list[np.ndarray]] = {name: [] for name in source.categories}
        self.seconds = 0.0
        self.images = 0
        self.resolution: Resolution = "image"

    def add(self, output: Output) -> None:
        """Counts a batch that has its masks."""
        loaded = output.loaded
        images = zip(loaded.records, loaded.indices, loaded.masks, loaded.sizes, strict=True)
        hashes = loaded.batch.seed[: len(loaded.records)]
        self._content += [f"{r.category}\0{r.label} {h:08x}" for r, h in zip(loaded.records, hashes, strict=True)]
        for place, (record, index, mask, size) in enumerate(images):
            map, score, label = output.maps[place], float(output.scores[place]), int(record.label or 0)
            inside = None if output.inside is None else output.inside[place]
            if inside is not None and mask is not None:
                # A defect outside of the region is nobody's business.
                mask = mask & inside
                label = int(mask.any()) if label else label
            label = self.protocol.image_label(label, mask)
            self.classes[record.category].update(
                output.scores[place : place + 1],
                [label],
                map[None],
                [mask],
                [record.identity or str(record.file)],
                [inside],
            )
            rule = self.threshold
            seen = map if inside is None else kept_to(inside, map, rule and rule.of(record.category).pixel)
            self.decisions.append(decide(index, record, label, score, seen, mask, size, rule))
            self.indices[record.category].append(index)
            if record.label == 0 and len(self.normal_values[record.category]) < 50:
                self.normal_values[record.category].append(map[::8, ::8].ravel())

    @property
    def content_hash(self) -> str | None:
        """SHA-256 of the images' pixels, labels and categories, in whatever order; None where other hosts saw some."""
        if jax.process_count() > 1:
            return None
        return hashlib.sha256("\n".join(sorted(self._content)).encode()).hexdigest()

    def results(self) -> dict[str, dict[str, Any]]:
        """Metrics by category, those without test images left out."""
        return {name: state.result() for name, state in self.classes.items() if len(state.labels)}


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
) -> dict[str, Any]:
    """Every category, seven metrics and their mean, in one pass: the dictionary of report.json.

    Args:
        detector: trained, or with its memory filled.
        source: labeled test images, or a data set, whose test part is taken.
        protocol: name of an evaluation protocol; results of different protocols are not comparable.
        resolution, batch_size, workers, progress: as in `Predictor.stream`.
        threshold: decides about each image; recorded in the report with how many it finds, misses and rejects.
        baseline: report of the comparison detector on the same source and protocol.
        provenance: JSON values for the report's "config", e.g. how the detector was trained.

    Raises:
        DataError: no test images, images without label, or images that cannot be read.
        ConfigError: a threshold of another protocol.
    """
    how = {"protocol": protocol, "resolution": resolution, "batch_size": batch_size, "workers": workers}
    scored = score(detector, source, threshold=threshold, **how, progress=progress)  # type: ignore[arg-type]
    return make_report(scored, source, baseline=baseline, provenance=provenance)


def score(
    detector: Detector,
    source: Source | DataSet,
    *,
    protocol: str = "exact-256",
    threshold: Threshold | None = None,
    features: FeatureCache | None = None,
    resolution: Resolution = "image",
    batch_size: int = 16,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scored:
    """The pass itself, for those who want curves and figures besides the report, or have `features` already.

    See `evaluate`, and `Predictor.stream` for `features`; with them the speed is not that of the detector and is left
    out of the report.
    """
    source = source.test if isinstance(source, DataSet) else source
    if threshold is not None and threshold.protocol != protocol:
        raise ConfigError(f"protocol = {protocol!r}: the threshold was measured under {threshold.protocol!r}")
    if not len(source):
        raise DataError(f"{source.name}: no test images")
    unlabeled = [str(record.file) for record in source.records if record.label is None]
    if unlabeled:
        raise DataError(
            f"{source.name}: {len(unlabeled)} images have no label; evaluation needs test/good and test/DEFECT",
            [Problem("no label", file, "whether it is normal is not known") for file in unlabeled],
        )
    predictor = Predictor(detector, protocol, batch_size=batch_size)
    scored, began = Scored(detector, source, predictor, threshold), 0.0
    scored.resolution = resolution
    how = {"features": features, "resolution": resolution, "workers": workers}
    outputs = predictor.stream(source, masks=True, progress=progress, **how)  # type: ignore[arg-type]
    for number, output in enumerate(outputs):
        scored.add(output)
        if number == 0:
            began = time.perf_counter()
        # The second batch is under way by then.
        elif number > 1 and features is None:
            scored.images += len(output.scores)
    scored.seconds = time.perf_counter() - began
    return scored


def make_report(
    scored: Scored,
    source: Source | DataSet,
    *,
    baseline: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """report.json of a finished pass."""
    threshold = scored.threshold
    classes = scored.results()
    rate = scored.images / scored.seconds if scored.images else None
    report: dict[str, Any] = {
        "protocol": scored.protocol.name,
        "protocol_description": scored.protocol.description,
        "config": {
            "system": scored.detector.name,
            "model": to_json(scored.detector.config),
            **(provenance or {}),
            "threshold": None if threshold is None else _threshold_summary(threshold),
            **_tiles(scored),
            **(
                {"regions": sorted(name or "all" for name, _ in regions)}
                if (regions := scored.detector.regions)
                else {}
            ),
        },
        "environment": {
            "versions": versions(),
            "device": f"{jax.devices()[0].device_kind} x{jax.device_count()} ({platform.machine()})",
            "seconds": scored.seconds,
            "images_per_second": rate,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "data": _describe(source) | {"sha256": {"test": scored.content_hash}},
        "mean": metrics.summarize(classes),
        "classes": classes,
        "notes": list(scored.detector.notes),
    }
    if rate is not None:
        report["environment"]["timed"] = (
            "decoding, network, post-processing and metrics of the test images after the first two batches, "
            f"{scored.images} images"
        )
    if threshold is not None:
        report["decisions"] = counted(scored.decisions, threshold)
    if baseline is not None:
        report["baseline"] = dict(baseline)
    return report


def figures(
    scored: Scored,
    *,
    baseline: Scored | None = None,
) -> Evaluation:
    """What the HTML report shows beyond report.json; predicts the images of the gallery and the mistakes once more.

    Args:
        scored: a finished pass; its threshold is drawn into histograms and overlays.
        baseline: a finished pass of the comparison detector.
    """
    threshold = scored.threshold
    seen = [name for name, state in scored.classes.items() if len(state.labels)]
    chosen = {
        name: choose_cases(np.array(scored.classes[name].scores), np.array(scored.classes[name].labels))
        for name in seen
    }
    ranks: dict[int, Rank] = {scored.indices[name][at]: rank for name in seen for rank, at in chosen[name].items()}
    wrong = [decision.index for own in mistakes(scored.decisions).values() for decision in own[:PICTURED]]
    cases, pictures = [], {}
    for output in scored.predictor.stream(scored.source, indices=list(dict.fromkeys([*ranks, *wrong]))):
        loaded = output.loaded
        for index, record, map, value in zip(loaded.indices, loaded.records, output.maps, output.scores, strict=True):
            image, mask = scored.source[index].image, scored.source.mask(index)
            if index in ranks:
                cases.append(Case(record, image, map, float(value), ranks[index], mask))
            if index in wrong:
                pictures[index] = Shown(shrink(image, SHOWN), map, mask)
    limits = {name: threshold.of(name) for name in seen} if threshold is not None else {}
    heat = {}
    for name in seen:
        normal = np.concatenate(scored.normal_values[name]) if scored.normal_values[name] else None
        if normal is not None or name in limits:
            heat[name] = heat_scale(limits[name].pixel if name in limits else None, normal)
    prototypes, tsne = _explanations(scored, ranks)
    return Evaluation(
        system=scored.detector.title,
        baseline="" if baseline is None else baseline.detector.title,
        curves={name: _curves(scored.classes[name]) for name in seen},
        baseline_curves={}
        if baseline is None
        else {n: _curves(s) for n, s in baseline.classes.items() if len(s.labels)},
        scores={name: (scored.classes[name].scores, scored.classes[name].labels) for name in seen},
        thresholds={name: limit.image for name, limit in limits.items()},
        threshold_note="" if threshold is None else _threshold_note(threshold, seen),
        heat=heat,
        pixel_thresholds={name: limit.pixel for name, limit in limits.items()},
        cases=cases,
        prototypes=prototypes,
        tsne=tsne,
        decisions=scored.decisions,
        baseline_decisions=() if baseline is None else baseline.decisions,
        pictures=pictures,
        warnings=() if threshold is None else threshold.warnings,
    )


def versions() -> dict[str, str]:
    """Versions of jaxad and of the libraries that its numbers depend on."""
    packages = ("jaxad", "jax", "jaxlib", "flax", "optax", "ott-jax", "numpy")
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def _explanations(scored: Scored, ranks: Mapping[int, Any]) -> tuple[list[PrototypeFigure], TsneInput | None]:
    """Prototype maps of one defective and one normal image per category, and patches for t-SNE."""
    records = scored.source.records
    pairs = []
    for members in scored.indices.values():
        defective = [i for i in members if ranks.get(i) == "median" and records[i].label]
        pairs += defective[:1] + [i for i in members if records[i].label == 0][:1]
    prototypes, before, after, anomalous, categories = [], [], [], [], []
    for index, found in zip(pairs, scored.predictor.explain(scored.source, pairs), strict=True):
        record, mask = records[index], scored.source.mask(index)
        if found.similarity is not None:
            image = scored.source[index].image
            prototypes.append(PrototypeFigure(record, image, np.asarray(found.similarity), found.prototypes, mask))
        # Without a mask nobody can say which patches of a defective image are defective.
        if found.before is None or found.after is None or (record.label and mask is None):
            continue
        marked = _patch_labels(mask, (found.before.shape[0], found.before.shape[1]))
        before.append(found.before.reshape(len(marked), -1))
        after.append(found.after.reshape(len(marked), -1))
        anomalous.append(marked)
        categories += [record.category] * len(marked)
    if not before:
        return prototypes, None
    patches = TsneInput(np.concatenate(before), np.concatenate(after), np.concatenate(anomalous), categories)
    return prototypes, patches


def _patch_labels(mask: np.ndarray | None, grid: tuple[int, int]) -> np.ndarray:
    """Whether at least a quarter of each patch is marked, bool [n]."""
    if mask is None:
        return np.zeros(grid[0] * grid[1], bool)
    rows = np.linspace(0, mask.shape[0], grid[0] + 1).astype(int)
    columns = np.linspace(0, mask.shape[1], grid[1] + 1).astype(int)
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))[np.ix_(rows, columns)]
    marked = sums[1:, 1:] - sums[:-1, 1:] - sums[1:, :-1] + sums[:-1, :-1]
    areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
    return (marked >= 0.25 * areas).ravel() & (marked.ravel() > 0)


def _curves(state: metrics.ClassMetrics) -> Curves:
    return Curves(**{name: (points[:, 0], points[:, 1]) for name, points in state.curves().items()})


def _describe(source: Source | DataSet) -> dict[str, Any]:
    if isinstance(source, DataSet):
        return {
            "source": visible(source.name),
            "counts": source.counts,
            "licence": source.license or None,
            "bad_files": [
                {"file": visible(p.file), "kind": p.kind, "detail": visible(p.detail)} for p in source.problems
            ],
            "notes": [str(note) for note in source.notes.get("notes", ())],
        }
    counts: dict[str, dict[str, int]] = {name: {"test_normal": 0, "test_anomalous": 0} for name in source.categories}
    for record in source.records:
        counts[record.category]["test_anomalous" if record.label else "test_normal"] += 1
    return {"source": visible(source.name), "counts": counts, "licence": None, "bad_files": []}


def _tiles(scored: Scored) -> dict[str, Any]:
    """How images were cut into tiles, and at which size maps and masks were compared; nothing of whole images."""
    tiling = scored.detector.tiling
    return {} if tiling is None else {"tiles": {**tiling.to_json(), "resolution": scored.resolution}}


def _threshold_summary(threshold: Threshold) -> dict[str, Any]:
    pooled = apart("(pooled)", threshold.limits)
    names = {name: name or pooled for name in threshold.limits}
    return {
        "false_alarm": threshold.false_alarm,
        "value": threshold.value,
        "supported": {names[name]: threshold.supported(name) for name in threshold.limits},
        "limits": {names[name]: dataclasses.asdict(limit) for name, limit in threshold.limits.items()},
        "warnings": list(threshold.warnings),
    }


def _threshold_note(threshold: Threshold, seen: Sequence[str]) -> str:
    """Where the thresholds come from, and what the smallest hold-out behind them vouches for."""
    if threshold.value is not None:
        return f"The threshold was set by hand to {threshold.value:g}."
    chosen = [name for name in seen if not threshold.of(name).by_hand]
    by_hand = ", ".join(name for name in seen if name not in chosen)
    said = [
        f"Thresholds come from {threshold.limits[POOLED].normals} normal hold-out images that training never saw: "
        "conformal quantile at a false-alarm rate of "
        f"{', '.join(f'{100 * rate:.3g}%' for rate in sorted({threshold.asked(name) or 0 for name in chosen}))} "
        "per category."
    ] * bool(chosen)
    few = [name for name in chosen if threshold.supported(name) != threshold.asked(name)]
    if few:
        least = min(few, key=lambda name: threshold.of(name).normals)
        number = threshold.of(least).normals
        said.append(
            f"The {number} hold-out images of {least} cannot support that: up to {100 / (number + 1):.3g}% "
            f"(1/{number + 1}) of further good parts may be rejected."
        )
    return " ".join([*said, *([f"Set by hand: {by_hand}."] if by_hand else [])])
