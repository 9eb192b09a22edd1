"""Plans of VLMDiff's programs for accelerators that need not be there, and what runs those programs where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxad.bench._account import batch_of, drawn, random_like
from jaxad.bench._caption_plans import caption_plans
from jaxad.bench._plan import plan
from jaxad.bench._topologies import Topology
from jaxad.bench._vlmdiff_networks import Size, abstract_first_stage, abstract_vlmdiff, features
from jaxad.config import FirstStageTrainConfig, TrainConfig, VLMDiffConfig
from jaxad.detectors.vlmdiff.detector import VLMDiff
from jaxad.inference.predictor import Predictor
from jaxad.training.autoencoder.step import AutoencoderTrainer
from jaxad.training.step import DetectorTrainer
from jaxad.types import Batch, Features

Program = Literal["prediction", "training", "autoencoder"]
Planned = Literal[Program, "captions"]
"""Programs that are planned; those of captions are neither counted nor timed without a topology."""
PROTOCOL = "diad"


def vlmdiff_plans(
    topology: Topology,
    micro_batches: Sequence[int],
    *,
    programs: Sequence[Planned],
    batch_size: int,
    dtype: Literal["float32", "bfloat16"],
    size: Size,
    remat: bool,
    first_moment: Literal["float32", "bfloat16"] = "float32",
    accumulate: int = 4,
) -> Iterator[dict[str, Any]]:
    """Plans of the prediction and of training on all devices of a topology, which share parameters and images.

    Autoencoder finetuning is planned as on each of the devices alone, in float32 and before a discriminator joins.

    Args:
        topology: chips.
        micro_batches: images that a device holds at once while training.
        programs: which of them.
        batch_size: images of a prediction, or described, at once on each device.
        dtype: compute type of all but the autoencoder's training.
        size: "published", or "tiny", for tests.
        remat: whether training computes activations again for the gradient.
        first_moment: type of Adam's mean of gradients.
        accumulate: micro-batches of a step.

    Yields:
        Rows as of `jaxad.bench._plan.plan`.
    """
    mesh, shared = topology.mesh(), {"size": size, "dtype": dtype}
    detector = abstract_vlmdiff(size, dtype, remat)
    if "prediction" in programs:
        images = batch_size * mesh.size
        inputs = batch_of(detector, images)
        traced = Predictor(detector, PROTOCOL, batch_size=images, mesh=mesh).trace(inputs)
        row = {"program": "prediction", "batch_size": images, **shared}
        prepare = partial(predicting, detector, inputs, images, mesh)
        yield row | plan(traced, topology, images=images, prepare=prepare, dtype=dtype)
    if "captions" in programs:
        yield from caption_plans(topology, batch_size, dtype=dtype, size=size)
    if "autoencoder" in programs:
        yield _first_stage_plan(topology, size)
    options: dict[str, Any] = {"accumulate": accumulate, "fsdp": mesh.size, "first_moment": first_moment}
    for micro_batch in micro_batches if "training" in programs else ():
        config = VLMDiffConfig.training("paper", batch_size=micro_batch * mesh.size, **options)
        images = config.batch_size * accumulate
        inputs = features(detector, images)
        traced = DetectorTrainer(detector, config, mesh).trace(inputs)
        row = {"program": f"training step of {accumulate} x {config.batch_size}", "batch_size": images, **shared}
        row |= {"first_moment": first_moment}
        prepare = partial(training, detector, config, mesh, inputs)
        yield row | plan(traced, topology, images=images, prepare=prepare, dtype=dtype)


def _first_stage_plan(topology: Topology, size: Size) -> dict[str, Any]:
    networks, config = abstract_first_stage(size)
    mesh, train = topology.mesh(), FirstStageTrainConfig()
    images: Any = jax.ShapeDtypeStruct((train.images, config.image_size, config.image_size, 3), jnp.uint8)
    traced = AutoencoderTrainer(networks, config, train, mesh).trace(images)

    def prepare() -> Callable[[], None]:
        real = {name: drawn(part) for name, part in networks.items()}
        return steps_of(AutoencoderTrainer(real, config, train, mesh), images)

    row = {"program": f"autoencoder step of {train.accumulate} x {train.batch_size}", "batch_size": train.images}
    row |= {"size": size, "dtype": "float32"}
    return row | plan(traced, topology, images=train.images, prepare=prepare, dtype="float32")


def steps_of(trainer: DetectorTrainer | AutoencoderTrainer, inputs: Any) -> Callable[[], None]:
    """What does an optimizer step on random inputs of such shapes, one after the other."""
    state, batch, key = [trainer.init()], random_like(inputs), jax.random.key(0)

    def step() -> None:
        state[0], metrics = trainer.step(state[0], batch, key)
        jax.block_until_ready((state, metrics))

    return step


def predicting(detector: VLMDiff, inputs: Batch, images: int, mesh: Mesh) -> Callable[[], Any]:
    """What predicts random images with random weights."""
    predictor, batch = Predictor(drawn(detector), PROTOCOL, batch_size=images, mesh=mesh), random_like(inputs)
    return lambda: predictor(batch)


def training(detector: VLMDiff, config: TrainConfig, mesh: Mesh, inputs: Features) -> Callable[[], None]:
    """What does training steps from random weights."""
    return steps_of(DetectorTrainer(drawn(detector), config, mesh), inputs)
