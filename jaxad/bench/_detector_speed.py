"""A detector's prediction and its training step, whichever detector it is: their programs, and their speed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench._account import batch_of, random_like
from jaxad.bench._measured import compiled, latencies, most_held, planned_gb, spread
from jaxad.bench._plan import matrix_operations
from jaxad.bench.input import cases
from jaxad.config import TrainConfig
from jaxad.data.folder import FolderSource
from jaxad.detector import Detector
from jaxad.features import abstract_features, extras_of
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.training.micro_batch import check_divides, memory_of, resolved
from jaxad.training.step import DetectorTrainer, step_bytes
from jaxad.types import Batch, Record

FILES = {1024: (16, 16)}
"""Side of the images on disk, as `jaxad.bench.input.cases` takes it; they are JPEGs."""


def prediction_speed(detector: Detector, protocol: str, batch_size: int, mesh: Mesh, seconds: float) -> dict[str, Any]:
    """The program of `jaxad predict` on batches of so many images.

    Args:
        detector: with its arrays.
        protocol: name of the protocol of maps and scores.
        batch_size: images at once, over all devices.
        mesh: the devices.
        seconds: that each of the two measurements takes, about.

    Returns:
        `compile_seconds`; `gb` of each device as planned (`planned_gb`); `tflop` of a batch; of the compiled program,
        its images on the device already, `runs`, `ms` and `images_per_second` (`spread`);
        `end_to_end_images_per_second`, with reading and resizing JPEGs of 1024 pixels and fetching maps and scores, on
        a CPU of several cores in two halves at once (`jaxad.inference.launcher`), which the program alone is not;
        and what was held (`most_held`).
    """
    predictor = Predictor(detector, protocol, batch_size=batch_size, mesh=mesh)
    shapes = images_like(detector, predictor.batch_size, training=False)
    traced, program, compile_seconds = compiled(lambda: predictor.trace(shapes))
    batch = parallel.shard_batch(known(random_like(shapes)), mesh)
    times = latencies(lambda: jax.block_until_ready(program(predictor.arrays, batch)), seconds)
    row = {"compile_seconds": compile_seconds, "gb": planned_gb(program), "tflop": matrix_operations(traced) / 1e12}
    row |= spread(times, predictor.batch_size)
    batches = int(np.clip(seconds / np.median(times), 2, 50))
    row["end_to_end_images_per_second"] = _from_files(detector, predictor, batches)
    return row | most_held()


def training_speed(detector: Detector, config: TrainConfig, mesh: Mesh, seconds: float) -> dict[str, Any]:
    """The optimizer step on cached features of random images; the detector keeps its arrays.

    Arguments and results are those of `prediction_speed`; end to end is with bringing the features to the device.
    """
    images = config.batch_size * config.accumulate
    needs = partial(step_bytes, detector, mesh=mesh)
    config = resolved(config, needs, devices=mesh.size, memory=memory_of(mesh))
    trainer, shapes = DetectorTrainer(detector, config, mesh), abstract_features(detector, images)
    traced, program, compile_seconds = compiled(lambda: trainer.trace(shapes))
    row = {"compile_seconds": compile_seconds, "gb": planned_gb(program), "tflop": matrix_operations(traced) / 1e12}
    step = steps(trainer)
    host = random_like(shapes)
    placed = parallel.shard_batch(host, mesh)
    row |= spread(latencies(lambda: step(placed), seconds), images)
    row["end_to_end_images_per_second"] = spread(latencies(lambda: step(host), seconds), images)["images_per_second"]
    return row | most_held()


def steps(trainer: DetectorTrainer) -> Callable[[Any], None]:
    """What does an optimizer step on the features it is given, one after the other, and waits for its end."""
    state = [trainer.init()]
    keys = (jax.random.fold_in(jax.random.key(0), number) for number in itertools.count())

    def step(features: Any) -> None:
        state[0], metrics = trainer.step(state[0], features, next(keys))
        jax.block_until_ready((state, metrics))

    return step


def prediction(detector: Detector, protocol: str, batch_size: int, mesh: Mesh) -> jax.stages.Traced:
    """The whole prediction of a batch of uint8 images: frozen network, reconstruction, map and score.

    Args:
        detector: with or without arrays.
        protocol: of the maps and scores.
        batch_size: images, over all devices.
        mesh: the devices, which need not be there.
    """
    batch = images_like(detector, batch_size, training=False)
    return Predictor(module_state.without_arrays(detector), protocol, batch_size=batch_size, mesh=mesh).trace(batch)


def training_step(detector: Detector, config: TrainConfig, mesh: Mesh) -> jax.stages.Traced:
    """The optimizer step on the cached features of a batch.

    Args:
        detector: with or without arrays.
        config: how it is trained, its micro-batch resolved.
        mesh: the devices, which need not be there.

    Raises:
        ConfigError: a batch that does not divide over the devices.
    """
    check_divides(config, mesh)
    features = abstract_features(detector, config.batch_size * config.accumulate)
    return DetectorTrainer(module_state.without_arrays(detector), config, mesh).trace(features)


def images_like(detector: Detector, images: int, *, training: bool) -> Batch:
    """Shapes of a batch, with all that the detector asks to know of the images."""
    notes: Mapping[str, Any] = extras_of(detector, [Record(Path(), "")] * images, training=training)
    return batch_of(detector, images, {name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in notes.items()})


def known(batch: Batch) -> Batch:
    """The images of the first category, without padding."""
    return dataclasses.replace(batch, valid=np.ones_like(batch.valid), category=np.zeros_like(batch.category))


def _from_files(detector: Detector, predictor: Predictor, batches: int) -> float:
    """Images per second from files to maps and scores on the host, over so many batches after a first."""
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        source, _ = next(cases(Path(folder), FILES))
        category = detector.categories[0] if detector.categories else "photo"
        records = tuple(dataclasses.replace(record, category=category) for record in source.records)
        source = FolderSource(source.name, records)
        for count in (1, batches):
            images = [index % len(source) for index in range(count * predictor.batch_size)]
            began = time.perf_counter()
            for _ in predictor.stream(source, indices=images, workers=workers):
                pass
    return len(images) / (time.perf_counter() - began)
