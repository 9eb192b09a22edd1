"""What DPDiff-AD's prediction and training step take: `jaxad bench dpdiff`, with a checkpoint those of any detector.

The programs are those that `jaxad fit` and `jaxad predict` run. They are timed on the devices at hand; with
`--topology` they are compiled by the compilers of accelerators that need not be there (`jaxad.bench._topologies`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench import benchmarks
from jaxad.bench._account import markdown, random_like
from jaxad.bench._detector_speed import (
    images_like,
    known,
    prediction,
    prediction_speed,
    steps,
    training_speed,
    training_step,
)
from jaxad.bench._dpdiff_detectors import PRESETS, PROTOCOL, BackboneName, Preset, abstract_dpdiff, drawn_dpdiff
from jaxad.bench._plan import largest_batch, limit_gb, plan, print_plans
from jaxad.bench._topologies import Topology, find_topologies
from jaxad.bench.models import peak_rate
from jaxad.config import TrainConfig, from_json
from jaxad.config.training import up_to_date
from jaxad.detector import Detector, Trainable
from jaxad.errors import ConfigError
from jaxad.features import abstract_features
from jaxad.inference.checkpoint import read_config, restore
from jaxad.inference.predictor import Predictor
from jaxad.nn.precision import compute_dtype
from jaxad.training.micro_batch import check_divides, with_micro_batch
from jaxad.training.step import DetectorTrainer

Program = Literal["prediction", "training"]
DType = Literal["auto", "float32", "bfloat16"]
BATCHES = (1, 16, 64)
"""Images of the predictions that are timed."""


def detector_speed(
    detector: Detector,
    train: TrainConfig | None,
    *,
    programs: Sequence[Program] = get_args(Program),
    batch_sizes: Sequence[int] = BATCHES,
    protocol: str = PROTOCOL,
    seconds: float = 10.0,
) -> Iterator[dict[str, Any]]:
    """Times the prediction and the training step of a detector on the devices at hand.

    Args:
        detector: any, with its arrays.
        train: how it is trained; None for one that is not.
        programs: which of them.
        batch_sizes: images of a prediction, over all devices.
        protocol: evaluation protocol of the predictions.
        seconds: of each measurement, about.

    Yields:
        Rows with `program`, `batch_size`, `device`, `devices`, `dtype`; what `jaxad.bench._detector_speed` says; and
        `share` of the devices' peak that the program reached, `peak_from` where that peak is known from
        (`jaxad.bench.models.peak_rate`).

    Raises:
        ConfigError: a batch that does not divide over the devices.
    """
    dtype = compute_dtype(getattr(detector.config, "precision", "auto"))
    rate, peak_from = peak_rate(jnp.dtype(dtype))

    def row(program: str, batch_size: int, devices: int, found: dict[str, Any]) -> dict[str, Any]:
        share = found["tflop"] * 1e12 / (found["ms"]["p50"] / 1e3) / (rate * devices)
        about = {"program": program, "batch_size": batch_size, "device": jax.devices()[0].device_kind}
        return about | {"devices": devices, "dtype": dtype, **found, "share": share, "peak_from": peak_from}

    mesh = parallel.make_mesh()
    for batch_size in batch_sizes if "prediction" in programs else ():
        batch = batch_size + -batch_size % mesh.size
        yield row("prediction", batch, mesh.size, prediction_speed(detector, protocol, batch, mesh, seconds))
    if "training" in programs and train is not None:
        mesh = parallel.make_mesh(train.fsdp)
        check_divides(train, mesh)
        found = training_speed(detector, train, mesh, seconds)
        yield row("training step", train.batch_size * train.accumulate, mesh.size, found)


def detector_plans(
    topology: Topology,
    detector: Detector,
    train: TrainConfig | None,
    *,
    about: Mapping[str, Any],
    filled: Callable[[], Detector],
    programs: Sequence[Program] = get_args(Program),
    batch_sizes: Sequence[int] = (64,),
    largest: bool = False,
    protocol: str = PROTOCOL,
) -> Iterator[dict[str, Any]]:
    """Plans of the prediction and of the training step of a detector, all devices sharing parameters and images.

    Args:
        topology: the devices.
        detector: any, with or without arrays.
        train: how it is trained; None for one that is not.
        about: what the rows say of the detector besides; `dtype` is its compute type.
        filled: the detector with arrays, for devices that are there.
        programs: which of them.
        batch_sizes: images of a prediction, over all devices.
        largest: whether the largest training step that fits is looked for, too.
        protocol: evaluation protocol of the predictions.

    Yields:
        Rows with `program`, `batch_size`, those of `about`, and what `jaxad.bench._plan.plan` says. The training step
        has the micro-batch that its config gives, all images at once where that is "auto".

    Raises:
        ConfigError: batches that do not divide over the devices, before any is compiled.
    """
    mesh, dtype = topology.mesh(), about["dtype"]
    batch_sizes = batch_sizes if "prediction" in programs else ()
    for batch_size in batch_sizes:
        parallel.check_batch_size(batch_size, mesh)
    config = None if train is None or "training" not in programs else _at_hand(train, mesh)

    def predicting(batch_size: int) -> Any:
        predictor = Predictor(filled(), protocol, batch_size=batch_size, mesh=mesh)
        images = known(random_like(images_like(detector, batch_size, training=False)))
        return lambda: predictor(images)

    for batch_size in batch_sizes:
        row = {"program": "prediction", "batch_size": batch_size, **about}
        traced = prediction(detector, protocol, batch_size, mesh)
        yield row | plan(traced, topology, images=batch_size, prepare=partial(predicting, batch_size), dtype=dtype)
    if config is None:
        return

    def training(config: TrainConfig, images: int) -> Any:
        step = steps(DetectorTrainer(filled(), config, mesh))
        features = parallel.shard_batch(random_like(abstract_features(detector, images)), mesh)
        return lambda: step(features)

    def planned(config: TrainConfig) -> dict[str, Any]:
        images = config.batch_size * config.accumulate
        traced, ready = training_step(detector, config, mesh), partial(training, config, images)
        row = {"program": "training step", "batch_size": images, **about}
        return row | plan(traced, topology, images=images, prepare=ready, dtype=dtype)

    yield (first := planned(config))
    if largest:
        steps_of = {config.batch_size: first} if config.accumulate == 1 else {}

        def held(images: int) -> float:
            if images not in steps_of:
                steps_of[images] = planned(dataclasses.replace(config, batch_size=images, accumulate=1))
            return steps_of[images]["gb"]["total"] or math.inf

        if most := largest_batch(held, limit_gb(topology), 8 * mesh.size):
            yield {**steps_of[most], "program": "largest training step"}


def _at_hand(train: TrainConfig, mesh: Mesh) -> TrainConfig:
    """The step of a config on the devices of a mesh that all share parameters, its micro-batch resolved."""
    train, micro = dataclasses.replace(train, fsdp=mesh.shape["fsdp"]), train.micro_batch
    if micro is None or micro == "auto":
        train = dataclasses.replace(train, micro_batch=None)
    else:
        train = with_micro_batch(train, micro)
    check_divides(train, mesh)
    return train


def main(
    topology: tuple[str, ...] = (),
    programs: tuple[Program, ...] = get_args(Program),
    batch_size: tuple[int, ...] | None = None,
    training_batch_size: int | None = None,
    backbone: BackboneName | None = None,
    depth: int | None = None,
    image_size: int | None = None,
    remat: bool = False,
    dtype: DType = "auto",
    preset: Preset | None = None,
    checkpoint: Path | None = None,
    largest: bool = False,
    seconds: float = 10.0,
) -> None:
    """Time DPDiff-AD's prediction and training step, or those of the detector of a checkpoint, whichever it is.

    Weights are random but for a checkpoint's. Lines of JSON go to stdout as soon as each is known; at the end, for
    readers, a table to stderr.

    Args:
        topology: Plan for these accelerators, which need not be there, instead: h100:8, a100:1, v5e:2x4 or v5p:2x2x1.
            Where they are there, the programs are timed too.
        programs: Only these.
        batch_size: Images of a prediction, over all devices; if not given 1, 16 and 64, of plans 64.
        training_batch_size: Images of a training step, at once and over all devices; the preset's or the checkpoint's
            if not given.
        backbone: Shape of the frozen network; the preset's if not given.
        depth: Blocks of the denoiser; the preset's if not given.
        image_size: Side in pixels of the square input; the preset's if not given.
        remat: Compute activations of the denoiser again while training instead of keeping them.
        dtype: Compute type; "auto" is float32 on CPUs and bfloat16 elsewhere.
        preset: Settings of DPDiff-AD; "paper" if not given.
        checkpoint: Time the detector of this workdir, of any kind, as it is; with --topology, plan for it, with its
            parameters divided over the devices.
        largest: Also look for the largest training step that fits the devices of a topology.
        seconds: Of each measurement, about.

    Raises:
        ConfigError: impossible settings, all of them; an unknown topology, or one whose compiler is not installed.
        CheckpointError: the checkpoint cannot be used.
    """
    shape = {"backbone": backbone, "depth": depth, "image_size": image_size, "preset": preset}
    given = {name: value for name, value in shape.items() if value is not None} | ({"remat": True} if remat else {})
    _check(topology, programs, batch_size, training_batch_size, checkpoint, largest, seconds, dtype, given)
    preset = preset or "paper"
    # Before anything is loaded; and TPUs' compiler must be found before jax looks for devices.
    topologies = find_topologies(topology)
    if checkpoint is None:
        name, protocol, train = backbone or PRESETS[preset], PROTOCOL, TrainConfig.preset(preset)
        kind: Any = dtype if dtype != "auto" else "bfloat16" if topology else compute_dtype(dtype)
        settings = {name: value for name, value in given.items() if name not in ("backbone", "preset")}
        bare = abstract_dpdiff(name, kind, preset=preset, **settings)
        filled: Callable[[], Detector] = partial(drawn_dpdiff, bare)
        detector: Detector = bare if topology else filled()
        about = {"detector": "dpdiff", "preset": preset, "backbone": name}
        about |= {field: getattr(bare.config, field) for field in ("depth", "image_size", "remat")}
    else:
        changes = _precision(checkpoint, dtype) if topology else {}
        restored = restore(checkpoint, **changes)
        detector, protocol = restored.detector, restored.meta["protocol"]
        filled, kind = partial(_same, detector), compute_dtype(getattr(detector.config, "precision", "auto"))
        recorded = restored.meta["train"] if isinstance(detector, Trainable) else None
        train = None if recorded is None else from_json(TrainConfig, up_to_date(recorded))
        about = {"detector": detector.name, "checkpoint": str(checkpoint)}
        if train is None and (programs == ("training",) or largest or training_batch_size is not None):
            raise ConfigError(f"checkpoint = {checkpoint}: {detector.name} is not trained; it has predictions alone")
    if train is not None and training_batch_size is not None:
        train = dataclasses.replace(train, batch_size=training_batch_size, accumulate=1, micro_batch=None)
    shared: Any = {"programs": programs, "protocol": protocol}
    if topology:
        shared |= {"batch_sizes": batch_size or (64,), "largest": largest, "filled": filled}
        shared["about"] = {**about, "dtype": kind}
        print_plans(topologies, lambda each: detector_plans(each, detector, train, **shared))
        return
    timed: Any = {**shared, "batch_sizes": batch_size or BATCHES, "seconds": seconds}
    rows = []
    try:
        for row in detector_speed(detector, train, **timed):
            rows.append({**about, **row})
            print(json.dumps(rows[-1]), flush=True)
    finally:
        # Also where a row fails or takes too long.
        print(table(rows), file=sys.stderr)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Measured rows as a table in Markdown."""
    heads = ["program", "images at once", "compiled in s", "ms p50", "p95", "p99", "images/s on the device"]
    heads += ["images/s end to end", "GB planned", "most GB so far", "share of peak"]
    lines = []
    for row in rows:
        held = row.get("peak_gb_so_far", row.get("peak_process_gb_so_far", 0.0))
        line = [row["program"], row["batch_size"], f"{row['compile_seconds']:.1f}"]
        line += [f"{row['ms'][name]:.4g}" for name in ("p50", "p95", "p99")]
        line += [f"{row[name]:.4g}" for name in ("images_per_second", "end_to_end_images_per_second")]
        lines.append([*line, f"{row['gb']['total']:.2f}", f"{held:.2f}", f"{row['share']:.2f}"])
    return markdown(heads, lines)


def _same(detector: Detector) -> Detector:
    return detector


def _precision(checkpoint: Path, dtype: DType) -> dict[str, Any]:
    """The type to plan a run in: the one asked for, else its own, which on accelerators is bfloat16 where it is "auto".

    Of CLIPFusion that is the type of all networks, where "auto" leaves one of them in float32 (`jaxad bench
    clipfusion`).
    """
    own = getattr(read_config(checkpoint), "precision", None)
    if dtype == "auto":
        return {"precision": "bfloat16"} if own == "auto" else {}
    return {} if own is None else {"precision": dtype}


def _check(
    topology: Sequence[str],
    programs: Sequence[str],
    batch_size: Sequence[int] | None,
    training_batch_size: int | None,
    checkpoint: Path | None,
    largest: bool,
    seconds: float,
    dtype: DType,
    given: dict[str, Any],
) -> None:
    problems = [] if programs else [f"programs: needs one or more of {', '.join(get_args(Program))}"]
    if batch_size is not None and (not batch_size or min(batch_size) < 1):
        problems.append(f"batch_size = {' '.join(map(str, batch_size))}: needs numbers of at least 1")
    if training_batch_size is not None and training_batch_size < 1:
        problems.append(f"training_batch_size = {training_batch_size}: must be at least 1")
    if not seconds > 0:
        problems.append(f"seconds = {seconds}: must be above 0")
    if largest and not topology:
        problems.append("topology: needs one or more with largest = True")
    if checkpoint is not None:
        fixed = {**given, **({} if topology or dtype == "auto" else {"dtype": dtype})}
        problems += [f"{name} = {value}: the checkpoint has its own" for name, value in fixed.items()]
    if problems:
        raise ConfigError("\n  ".join(problems))


benchmarks.register("dpdiff", main)
