"""What DPDiff-AD takes of an accelerator that need not be there: `jaxad bench dpdiff --topology h100:1`.

The programs are those that `jaxad fit` and `jaxad predict` run, at the published size unless told otherwise, compiled
by the accelerator's own compiler (`jaxad.bench._topologies`), which says what memory they take and what they do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args

from jaxad.bench import benchmarks
from jaxad.bench._dpdiff_programs import BackboneName, abstract_dpdiff, prediction, training_step
from jaxad.bench._plan import plan, print_plans
from jaxad.bench._topologies import Topology
from jaxad.errors import ConfigError

Program = Literal["prediction", "training"]


def dpdiff_plans(
    topology: Topology,
    *,
    programs: Sequence[Program] = get_args(Program),
    batch_size: int = 64,
    training_batch_size: int = 32,
    backbone: BackboneName = "dinov2-reg-base",
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
    **settings: Any,
) -> Iterator[dict[str, Any]]:
    """Plans of the prediction and of the training step, all devices sharing parameters and images.

    Args:
        topology: the devices.
        programs: which of them.
        batch_size, training_batch_size: images of a prediction and of a step, over all devices.
        backbone: shape of the frozen network.
        dtype: compute type.
        settings: fields of `DPDiffConfig`, such as depth and image_size.

    Yields:
        Rows with `program`, `batch_size`, `backbone`, `dtype`, `depth`, `image_size`, and what `jaxad.bench._plan.plan`
        says of it.

    Raises:
        ConfigError: impossible settings, or batches that do not divide over the devices.
    """
    detector = abstract_dpdiff(backbone, dtype, **settings)
    shared = {"backbone": backbone, "dtype": dtype}
    shared |= {"depth": detector.config.depth, "image_size": detector.config.image_size}
    mesh = topology.mesh()
    if "prediction" in programs:
        row = {"program": "prediction", "batch_size": batch_size, **shared}
        yield row | plan(prediction(detector, batch_size, mesh), topology, images=batch_size)
    if "training" in programs:
        row = {"program": "training step", "batch_size": training_batch_size, **shared}
        yield row | plan(training_step(detector, training_batch_size, mesh), topology, images=training_batch_size)


def main(
    topology: tuple[str, ...] = ("h100:1",),
    programs: tuple[Program, ...] = get_args(Program),
    batch_size: int = 64,
    training_batch_size: int = 32,
    backbone: BackboneName = "dinov2-reg-base",
    depth: int = 4,
    image_size: int = 448,
    dtype: Literal["float32", "bfloat16"] = "bfloat16",
) -> None:
    """Plan DPDiff-AD's prediction and training step on accelerators that need not be there.

    Lines of JSON go to stdout as soon as each is known; at the end, for readers, a table to stderr.

    Args:
        topology: Devices to compile for, such as h100:8, a100:1, v5e:2x4 or v5p:2x2x1.
        programs: Only these.
        batch_size: Images of a prediction, over all devices.
        training_batch_size: Images of a training step, over all devices.
        backbone: Shape of the frozen network.
        depth: Blocks of the denoiser.
        image_size: Side in pixels of the square input.
        dtype: Compute type.

    Raises:
        ConfigError: impossible settings; an unknown topology, or one whose compiler is not installed.
    """
    if not topology or not programs:
        raise ConfigError("topology and programs: need at least one each")
    settings: Any = {"programs": programs, "batch_size": batch_size, "training_batch_size": training_batch_size}
    settings |= {"backbone": backbone, "dtype": dtype, "depth": depth, "image_size": image_size}
    print_plans(topology, lambda each: dpdiff_plans(each, **settings))


benchmarks.register("dpdiff", main)
