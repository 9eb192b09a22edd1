"""How many images of an optimizer step are held at once: as many as fit, by the compiler's plan of the step."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator

import jax
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import TrainConfig
from jaxad.errors import ConfigError

UNTOLD = 10**18
"""Bytes of a program that a compiler found too large without saying how large."""
SHARE = 0.95
"""Of the memory that programs can have: plans leave out what libraries take while they run."""


def with_micro_batch(config: TrainConfig, images: int) -> TrainConfig:
    """The same step with `images` at once, in as many parts as that makes."""
    parts = config.batch_size * config.accumulate // images
    return dataclasses.replace(config, batch_size=images, accumulate=parts, micro_batch=None)


def check_divides(config: TrainConfig, mesh: Mesh) -> None:
    """Raises ConfigError where the images that are held at once do not divide over the devices; "auto" is seen to."""
    if config.micro_batch is None:
        parallel.check_batch_size(config.batch_size, mesh)
    elif config.micro_batch != "auto":
        parallel.check_batch_size(config.micro_batch, mesh, "micro_batch")


def resolved(config: TrainConfig, needs: Callable[[TrainConfig], int], *, devices: int, memory: int) -> TrainConfig:
    """The config with its micro-batch as `batch_size` and `accumulate`.

    Args:
        config: of the step.
        needs: bytes of each device that the step of a config takes; asked of ever smaller micro-batches.
        devices: their number, which divides a micro-batch.
        memory: bytes that programs can have of each.

    Raises:
        ConfigError: not even the smallest micro-batch fits, or none divides over the devices.
    """
    if config.micro_batch is None:
        return config
    if config.micro_batch != "auto":
        return with_micro_batch(config, config.micro_batch)
    needed = None
    for images in _micro_batches(config.batch_size * config.accumulate, devices):
        candidate = with_micro_batch(config, images)
        needed = needs(candidate)
        if needed <= SHARE * memory:
            return candidate
    if needed is None:
        total = config.batch_size * config.accumulate
        raise ConfigError(f"batch_size x accumulate = {total}: must be a multiple of the number of devices, {devices}")
    takes = "more than there is" if needed >= UNTOLD else f"{needed / 1e9:.1f} GB"
    raise ConfigError(
        f'micro_batch = "auto": even one image on each device takes {takes}, of its '
        f"{SHARE * memory / 1e9:.1f} GB; remat = True, a smaller image_size, or fsdp over more devices need less"
        + (', as does cache = "auto", with which frozen networks stay out of the step' if config.cache == "off" else "")
    )


def memory_of(mesh: Mesh) -> int:
    """Bytes that programs can have of each device of a mesh, the least of all; of CPUs, of the machine."""
    mine = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    limits = [(device.memory_stats() or {}).get("bytes_limit") for device in mine]
    if known := [limit for limit in limits if limit]:
        return min(known)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(mine)


def _micro_batches(images: int, devices: int) -> Iterator[int]:
    """Numbers of images that divide a step's and divide over the devices, the largest first."""
    return (part for part in range(images, 0, -1) if images % part == 0 and part % devices == 0)
