"""Training: one jitted step with donated state over the mesh, on features computed once; resumes exactly.

`fit` is for detectors; what else trains has its own, on the same loop (`jaxad.training.loop`).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxad import parallel
from jaxad.config import TrainConfig, to_json
from jaxad.data.holdout import digests
from jaxad.data.region import Region
from jaxad.data.tiles import TiledSource, Tiling
from jaxad.detector import Detector, Remembers, Trainable
from jaxad.errors import ConfigError, DataError
from jaxad.features import FEATURES, FeatureCache, LastFeatures, cache_identity, extras_of, remove_copy
from jaxad.inference.calibrate import choose_limits
from jaxad.inference.checkpoint import restore
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.inference.holdout_scores import measure_holdout
from jaxad.inference.meta import digests_text
from jaxad.inference.rechoose import read_decided, renew_card
from jaxad.inference.threshold import Threshold
from jaxad.inference.uncaptioned import Uncaptioned
from jaxad.io.notebook import in_notebook, table
from jaxad.io.program_cache import keep_programs
from jaxad.io.progress import Reporter, duration
from jaxad.io.text import visible
from jaxad.training.logger import check_loggers
from jaxad.training.micro_batch import check_divides
from jaxad.training.run_folder import Place, claim, content_hash, in_use, require_room_for_steps
from jaxad.training.trace import check_range, late
from jaxad.training.trainer import train
from jaxad.training.warm_start import WarmStart
from jaxad.training.watching import Watched, watched
from jaxad.types import Source


@dataclass(frozen=True, repr=False)
class Run:
    """What `fit` leaves: the model with the parameters to evaluate, its threshold, and where all is kept."""

    model: Detector
    threshold: Threshold | None
    workdir: Path
    seconds: float
    images_per_second: float | None

    def __repr__(self) -> str:
        facts = ", ".join(f"{name} {value}" for name, value in self._facts().items())
        return f"<Run in {visible(self.workdir)}: {self.model!r}, {facts}>"

    def _repr_html_(self) -> str:
        """For notebooks: what was trained, in which time, and the limits of its threshold."""
        limits = "" if self.threshold is None else self.threshold._repr_html_()
        return table((), list(self._facts().items()), f"{repr(self.model)[1:-1]}, in {self.workdir}") + limits

    def _facts(self) -> dict[str, str]:
        rate = {} if self.images_per_second is None else {"images per second": f"{self.images_per_second:.3g}"}
        rule = "none" if self.threshold is None else self.threshold.source
        return {"time": duration(self.seconds), **rate, "threshold": rule}


def fit(
    detector: Detector,
    source: Source,
    config: TrainConfig | None = None,
    *,
    workdir: Path | str,
    holdout: Source | None = None,
    test: Source | None = None,
    false_alarm: float = 0.01,
    protocol: str = "exact-256",
    provenance: Mapping[str, Any] | None = None,
    features: FeatureCache | LastFeatures | None = None,
    tiling: Tiling | None = None,
    tiles_per_image: int | None = None,
    regions: Mapping[str, Region] | None = None,
    warm_start: Path | str | None = None,
    profile: tuple[int, int] | None = None,
    workers: int | None = None,
    reporter: Reporter | None = None,
) -> Run:
    """Trains a detector, or lets it remember, chooses its threshold, and keeps all in `workdir`.

    A workdir with checkpoints of the same run, on the same images wherever they lie, is resumed; the result is
    bit-equal to an undisturbed run on the same devices. A workdir of a finished run is only loaded; with another
    `false_alarm` its threshold is chosen anew from the scores of the hold-out that are kept with it, and with more
    steps it goes on as if these had been asked for from the beginning, unless its schedule ended with the fewer steps
    (`TrainConfig.schedule_steps`). One process, or group of processes, at a time works on it. Within
    `jaxad.io.signals.listening`, as on the command line, a signal to end finishes the step at hand, saves it, and
    raises `Stopped`.

    Args:
        detector: as created; its parameters are those of step 0. It keeps them, but in the host's memory, so that no
            device holds any array twice; the trained detector is `Run.model`.
        source: normal images to train on.
        config: how to train; None for the published setting.
        workdir: folder of the run: config.json, metrics.csv, evaluations-PART.csv, checkpoints/, features/ where they
            are cached on disk or, until it is complete, in memory, and at its end README.md, its model card.
        holdout: normal images that are not in `source`, for the threshold; None or empty chooses none.
        test: labeled images, which are looked at on the way where `config.eval_on` says so, and not used otherwise.
        false_alarm: rate at which normal images may exceed the threshold; another one makes no other run.
        protocol: evaluation protocol in which the threshold is measured.
        provenance: JSON values recorded with the run, e.g. where the data came from.
        features: of all images of `source`, where they are computed already; they must be this detector's. Or what
            several fits share: one that is trained, and keeps its features in memory, leaves them there for the next.
        tiling: how to cut images into tiles, which are then what the detector learns from, remembers and judges, here
            and wherever it is used; None takes whole images.
        regions: by category, "" for all others, the part of images to which scores and maps are kept, for the threshold
            and wherever the detector is used; it learns from whole images.
        tiles_per_image: tiles to learn from of each image, drawn by the seed of `config`; None for all.
        warm_start: workdir or step of another run, whose trained parameters the detector takes in place of its own, to
            be those of step 0; all else, statistics and optimizer too, begins anew. A run that has checkpoints of its
            own does not read it again.
        profile: first and last step, counted from 1, that jax.profiler traces into the folder `profile` of the workdir.
        workers: threads that decode images; None for one per CPU.
        reporter: shows progress; None is silent, but in a notebook.

    Raises:
        DataError: no images, or images that cannot be read.
        CheckpointError: the workdir holds a different run, all settings listed that differ; or a step cannot be saved;
            or the parameters of `warm_start` are others than the detector's, all listed.
        ConfigError: impossible settings; or the workdir is in use, cannot be written, or has no room for checkpoints.
        TrainingError: the loss, or scores of the hold-out, are not finite.
    """
    keep_programs()
    config = config or TrainConfig()
    config.check()
    if not len(source) and detector.inputs.needs_images:
        raise DataError(f"{source.name}: no normal training images")
    if tiles_per_image is not None and (tiling is None or tiles_per_image < 1):
        raise ConfigError(f"tiles_per_image = {tiles_per_image}: must be at least 1, and needs tiles (tile = 448)")
    if tiling is not None:
        source = TiledSource(source, tiling, per_image=tiles_per_image, seed=config.seed, workers=workers)
        provenance = {**(provenance or {}), "tiles": tiling.to_json() | {"per_image": tiles_per_image or "all"}}
    config = config.counted(len(source))
    config.check()
    if isinstance(features, FeatureCache) and features.identity != cache_identity(detector, source):
        raise DataError(f"{source.name}: the features given are of other images or another network; build them anew")
    trains = isinstance(detector, Trainable) and detector.trains
    _check_asked(detector, config if trains else None, warm_start, profile)
    watch = watched(config, holdout, test) if trains else None
    if not parallel.is_main_process():
        reporter = Reporter(quiet=True)
    elif reporter is None:
        reporter = Reporter(quiet=not in_notebook())
    if watch is not None:
        warn = reporter.warn
        Uncaptioned(detector, told=lambda text: warn([f"evaluations: {text}"])).look(watch.source)
    run = Place(Path(workdir), parallel.make_mesh(config.fsdp), workers, reporter, profile)
    detector.regions = tuple(sorted((regions or {}).items(), key=lambda item: item[0]))
    if detector.regions:
        recorded = {name or "all": region.to_json() for name, region in detector.regions}
        provenance = {**(provenance or {}), "regions": recorded}
    begin = None if warm_start is None else WarmStart(detector, warm_start, run.workdir)
    with in_use(run.workdir):
        return _fit(detector, source, config, run, holdout, watch, false_alarm, protocol, provenance, features, begin)


def _check_asked(
    detector: Detector, config: TrainConfig | None, warm_start: Path | str | None, profile: tuple[int, int] | None
) -> None:
    """Raises ConfigError for what is asked of a training that there is none of, None as `config`, or that is too short.

    Loggers whose packages are missing are named here, before any work.
    """
    if config is None:
        asked = {"warm start": warm_start, "profile": profile}
        if names := [name for name, value in asked.items() if value is not None]:
            raise ConfigError(f"{' and '.join(names)}: {detector.name} is not trained; leave that out")
        return
    if config.eval_every is not None and isinstance(detector, Trainable) and detector.finishes:
        raise ConfigError(
            f"eval_every = {config.eval_every}: {detector.name} needs, with these settings, what is measured after its "
            "last step, and cannot judge before; leave that out"
        )
    check_loggers(config.loggers)
    check_range(profile, config.last_step)


def _fit(
    detector: Detector,
    source: Source,
    config: TrainConfig,
    run: Place,
    holdout: Source | None,
    watch: Watched | None,
    false_alarm: float,
    protocol: str,
    provenance: Mapping[str, Any] | None,
    features: FeatureCache | LastFeatures | None,
    begin: WarmStart | None,
) -> Run:
    """As `fit`, in a workdir that is this process's alone."""
    workers, reporter = run.workers, run.reporter
    trains = isinstance(detector, Trainable) and detector.trains
    if trains:
        check_divides(config, run.mesh)
    content: dict[str, Any] = {
        "images": content_hash(source, extras_of(detector, source.records, training=True), workers=workers)
    }
    if holdout is not None and len(holdout):
        notes = extras_of(detector, holdout.records, training=False)
        content["holdout"] = content_hash(holdout, notes, workers=workers)
    if detector.regions:
        regions = json.dumps([(name, region.to_json()) for name, region in detector.regions])
        content["regions"] = hashlib.sha256(regions.encode()).hexdigest()
    parallel.check_same(json.dumps([content, detector.weight_hashes]), f"{source.name}: the images, or the weights,")
    meta = {
        "train": to_json(config) if trains else None,
        "data": {"source": source.name, "images": len(source), **(provenance or {}), "sha256": content},
        "protocol": protocol,
        "false_alarm": false_alarm,
        "weights": detector.weight_hashes,
        "from": begin and begin.record,
    }
    resources = {"train": config.RESOURCES, "config": getattr(detector.config, "RESOURCES", ())}
    settings = {"system": detector.name, "config": to_json(detector.config), **meta}
    reporter.warn(claim(run.workdir, settings, resources))
    images = source.source if isinstance(source, TiledSource) else source
    meta["learned"] = [digests_text(digests(images, workers=workers))]
    began, rate, scores = time.perf_counter(), None, None
    with CheckpointWriter(run.workdir, config.keep_checkpoints) as writer:
        if begin is not None and writer.latest is None:
            meta["from"] = begin.taken(detector)
        final = config.last_step if trains else 0
        if writer.latest == final:
            restored = restore(run.workdir)
            reporter.warn([*restored.notes, *late(run.profile, final)])
            detector = restored.detector
            settled = restored.threshold is None or restored.meta.get("false_alarm") == false_alarm
            if restored.meta["complete"] and settled:
                _end(run)
                reporter.say(f"{visible(run.workdir)} is complete; nothing to train")
                return Run(detector, restored.threshold, run.workdir, 0.0, None)
            scores = read_decided(restored.folder).holdout if restored.meta["complete"] else None
        elif isinstance(detector, Trainable) and trains:
            reporter.say(_length(config, source))
            detector, rate = train(detector, source, config, run, writer, meta, features, watch)
        else:
            detector.learn_names(source)
            if isinstance(detector, Remembers):
                with reporter.images("remember", len(source)) as progress:
                    if isinstance(features, LastFeatures):
                        # Those of a cache are rounded: which bits are remembered would depend on the run before.
                        features.clear()
                    cached = features if isinstance(features, FeatureCache) else None
                    detector.remember(source, features=cached, progress=progress)
            require_room_for_steps(run.workdir, writer.size(detector), 0)
            writer.save(final, detector, meta=meta)
        # What can go wrong from here on costs no step.
        threshold = None
        if scores is None and holdout is not None and len(holdout):
            with reporter.images("threshold", len(holdout)) as progress:
                scores = measure_holdout(detector, holdout, protocol=protocol, workers=workers, progress=progress)
        if scores is not None:
            threshold = choose_limits(scores, false_alarm=false_alarm)
            reporter.warn(threshold.warnings)
        writer.complete(final, threshold, scores, false_alarm)
    _end(run)
    return Run(detector, threshold, run.workdir, time.perf_counter() - began, rate)


def _end(run: Place) -> None:
    """The main process writes README.md of a complete run, unless the user has one there, and removes what only a run
    to be resumed needs."""
    if parallel.is_main_process():
        remove_copy(run.workdir / FEATURES)
        renew_card(run.workdir, run.reporter.warn)


def _length(config: TrainConfig, source: Source) -> str:
    """How long training will be, for the line before it begins."""
    at_once, count = config.batch_size * config.accumulate, max(len(source), 1)
    what = "images" if getattr(source, "tiling", None) is None else "tiles"
    epochs = f"{config.last_step * at_once / count:.3g} epochs of {len(source):,} {what}"
    return f"{config.last_step:,} steps of {at_once} {what}, {epochs}"
