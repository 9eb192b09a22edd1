"""Trains a detector from the newest step that is there, or from the beginning: features, statistics, steps."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from flax import nnx

from jaxad import parallel
from jaxad.config import TrainConfig, to_json
from jaxad.data.batches import padded_size
from jaxad.data.sampling import TrainingOrder
from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.features import FEATURES, Encoder, FeatureCache, LastFeatures, LiveFeatures, Progress
from jaxad.inference.checkpoint import read_meta
from jaxad.inference.checkpoint_writer import CheckpointWriter
from jaxad.io.signals import held
from jaxad.io.text import visible
from jaxad.nn import module_state
from jaxad.nn.variables import Fixed, Frozen, Memory
from jaxad.training.feeding import batches_of
from jaxad.training.loop import run_steps
from jaxad.training.micro_batch import SHARE, check_divides, memory_of, resolved
from jaxad.training.run_folder import Place, require_room_for_steps
from jaxad.training.step import DetectorTrainer, planned_bytes, step_bytes
from jaxad.training.watching import Watched, evaluations
from jaxad.types import Features, Source

ENCODED = 32
"""Images that frozen networks see at once, at most."""


def train(
    detector: Detector,
    source: Source,
    config: TrainConfig,
    run: Place,
    writer: CheckpointWriter,
    meta: Mapping[str, Any],
    features: FeatureCache | LastFeatures | None = None,
    watch: Watched | None = None,
    *,
    resumable: bool = True,
) -> tuple[Detector, float | None]:
    """Trains from the newest step that is there, or from the beginning, to `config.steps`, and saves the last step.

    Args:
        detector: as created; its parameters are those of step 0.
        source: the images.
        config: how to train.
        run: where.
        writer: of the run's checkpoints.
        meta: JSON values to keep with every step.
        features: of all images, where they are computed already, or may be.
        watch: images that are scored on the way.
        resumable: whether a copy of features in memory is kept beside the run until it is complete (`remove_copy`).

    Returns:
        The detector to evaluate, and images per second.
    """
    detector.learn_names(source)
    config = _with_micro_batch(detector, config, run, writer.latest)
    _move_to_host(detector)
    meta = {**meta, "micro_batch": config.batch_size}
    if isinstance(features, FeatureCache):
        return _train(detector, source, features, config, run, writer, meta, watch)
    made = _features(detector, source, config, run, features)
    return _train(detector, source, made, config, run, writer, meta, watch, keeps=resumable)


def _train(
    detector: Any,
    source: Source,
    features: FeatureCache | LiveFeatures,
    config: TrainConfig,
    run: Place,
    writer: CheckpointWriter,
    meta: Mapping[str, Any],
    watch: Watched | None,
    *,
    keeps: bool = False,
) -> tuple[Detector, float | None]:
    """Statistics, then steps, all saved -> (detector to evaluate, images per second)."""
    resumed = writer.latest or 0
    # Statistics come before step 0, so that a resumed run and a fresh one compute the same. Those of a last step are of
    # what was trained: a run that gets more steps goes on from before they were taken, an update keeps them.
    if resumed and ("update" in meta or read_meta(run.workdir)["train"]["steps"] != resumed):
        writer.restore_statistics(resumed, detector)
    else:
        detector.prepare(features.stream())
    trainer = DetectorTrainer(detector, config, run.mesh)
    size = writer.size(detector, trainer.abstract_state)
    require_room_for_steps(run.workdir, size, config.keep_checkpoints)
    if keeps and isinstance(features, FeatureCache):
        _keep_copy(features, config, size, run)
    if resumed:
        state = writer.restore_training(resumed, trainer.abstract_state)
        run.reporter.say(f"resuming {visible(run.workdir)} after step {resumed}")
    else:
        state = trainer.init()
    # Steps that are done and not saved are lost by a signal.
    with held():
        state, rate = run_steps(
            trainer,
            state,
            _batch_at(trainer, source, features, config, run),
            config,
            resumed=resumed,
            steps=config.last_step,
            place=run,
            settings={"system": detector.name, "config": to_json(detector.config), **meta},
            on_save=lambda step, state: writer.save(step, trainer.detector(state), meta=meta, training=state),
            columns=lambda step: {"learning_rate": float(trainer.learning_rate(step - 1))},
            evaluations=watch and evaluations(detector, trainer, watch, meta["protocol"], config, run),
        )
        graphdef, arrays = module_state.split(trainer.detector(state))
        trained: Any = module_state.merge(graphdef, parallel.shard_parameters(arrays, run.mesh))
        if trained.finishes:
            with run.reporter.images("last pass", len(source)) as progress:
                trained.finish(_counted(features.stream(), progress))
        # Else it was saved before it was evaluated; there was nothing to finish then.
        if watch is None:
            writer.save(config.last_step, trained, meta=meta, training=state)
    return trained, rate


def _counted(stream: Iterable[Features], progress: Progress) -> Iterator[Features]:
    """The stream itself; every batch is counted once the next one is asked for."""
    for batch in stream:
        yield batch
        progress(len(batch.tokens))


def _with_micro_batch(detector: Detector, config: TrainConfig, run: Place, latest: int | None) -> TrainConfig:
    """The config with its micro-batch as batch size and accumulation: in all processes, and when resumed, the same."""
    recorded = None if latest is None else read_meta(run.workdir).get("micro_batch")
    if config.micro_batch == "auto" and recorded:
        config = dataclasses.replace(config, micro_batch=recorded)
        config.check()
        check_divides(config, run.mesh)
    step = partial(step_bytes, detector, mesh=run.mesh)
    if config.micro_batch != "auto":
        return resolved(config, step, devices=run.mesh.size, memory=0)
    if any(isinstance(node, Memory) for _, node in nnx.iter_graph(detector)):
        raise ConfigError(
            'micro_batch = "auto": how much this detector remembers shows when it is trained, and its step cannot be '
            "planned before; give the number of images, e.g. 8"
        )
    # Networks that make features anew stay beside the step.
    images = config.batch_size * config.accumulate
    beside = planned_bytes(_encoder(detector, images, run).trace()) if config.cache == "off" else 0
    # Of the process that has least, so that all try, and take, the same.
    memory = parallel.least(memory_of(run.mesh) >> 20) << 20
    found = resolved(config, lambda config: step(config) + beside, devices=run.mesh.size, memory=memory)
    run.reporter.say(f"{found.batch_size} images at once, {found.accumulate} times a step (micro_batch = auto)")
    return found


def _encoder(detector: Detector, images: int, run: Place) -> Encoder:
    """The frozen networks, for so many images in as few equal batches as `ENCODED` allows."""
    return Encoder(detector, batch_size=-(-images // -(-images // ENCODED)), workers=run.workers, mesh=run.mesh)


def _batch_at(
    trainer: DetectorTrainer, source: Source, features: FeatureCache | LiveFeatures, config: TrainConfig, run: Place
) -> Callable[[int], Features]:
    """The features of a step's images, on the devices, by the number of the step; holds what it keeps there."""
    order = TrainingOrder([record.category for record in source.records], config.sampling, config.seed)
    images = config.batch_size * config.accumulate

    def spare() -> int:
        """Bytes of each device that the step leaves, by the plan of the program that will run."""
        assert isinstance(features, FeatureCache), "those made anew take no place"
        return int(SHARE * memory_of(run.mesh)) - trainer.bytes(features.abstract(images))

    batch_of = batches_of(features, run.mesh, config.device_share, spare)
    return lambda step: batch_of(order.batch(step, images))


def _move_to_host(detector: Detector) -> None:
    """Frees the devices of the detector's networks: what training needs of them it places itself."""
    variables = [node for _, node in nnx.iter_graph(detector) if isinstance(node, nnx.Param | Frozen | Fixed)]
    for variable, value in zip(variables, parallel.to_host([v.get_value() for v in variables]), strict=True):
        variable.set_value(value)


def _features(
    detector: Detector, source: Source, config: TrainConfig, run: Place, shared: LastFeatures | None
) -> FeatureCache | LiveFeatures:
    """The features of all images, where `config.cache` wants them; those in memory are shared."""
    size, where = FeatureCache.size(detector, len(source)), config.cache
    if where == "auto":
        where = "memory" if size <= config.cache_limit_gb * 1e9 else "disk"
    if shared is not None and where != "memory":
        shared.clear()
    at_once = config.batch_size * config.accumulate if where == "off" else padded_size(len(source), ENCODED)
    encoder = _encoder(detector, at_once, run)
    if where == "off":
        run.reporter.say(f"{len(source)} images; features are computed anew at every step (cache = off)")
        return LiveFeatures(encoder, source)
    folder = run.workdir / FEATURES

    def build() -> FeatureCache:
        run.reporter.say(f"{len(source)} images; their features take {size / 1e9:.2f} GB, kept in {where}")
        with run.reporter.images("features", len(source)) as progress:
            return FeatureCache.build(
                detector,
                source,
                folder=folder if where == "disk" else None,
                encoder=encoder,
                progress=progress,
                warn=run.reporter.warn,
            )

    if where == "disk":
        return build()

    def take() -> FeatureCache:
        found = FeatureCache.load(detector, source, folder, run.reporter.warn)
        return build() if found is None else found

    return take() if shared is None else shared.of(detector, source, take)


def _keep_copy(features: FeatureCache, config: TrainConfig, step: int, run: Place) -> None:
    """Writes features that are in memory beside the run, for when it is resumed, if the disk has room for them too.

    Args:
        features: of all images.
        config: how many checkpoints are kept.
        step: bytes of one.
        run: where.
    """
    folder = run.workdir / FEATURES
    if features.on_disk or not parallel.is_main_process() or features.is_in(folder):
        return
    try:
        if shutil.disk_usage(run.workdir).free < features.bytes + step * (config.keep_checkpoints + 1):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        features.save(folder)
    except OSError as error:
        said = f"{folder}: features cannot be kept beside the run: {error.strerror}"
        run.reporter.warn([f"{said}; if it is resumed, it computes them anew"])
