"""Accelerators that need not be there: XLA compiles for them on any machine, by the name of a topology.

A topology is written as `v5e:2x4` (a TPU slice, chips along each side) or `h100:8` (GPUs of one host).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.errors import ConfigError


@dataclass(frozen=True)
class Chip:
    """One accelerator, by its maker's data sheet.

    Attributes:
        name: as a device of it calls itself.
        platform: what programs for it are lowered for.
        memory_gb: memory in 1e9 bytes.
        peak_tflops: dense bfloat16 operations per second, in 1e12.
        bandwidth_gbs: memory bandwidth in 1e9 bytes per second.
        gpu: what XLA must know of a GPU.
        tf32_tflops: dense TF32 operations per second, in 1e12, as which GPUs multiply float32 by default; None where
            the data sheet has no rate for float32, as those of TPUs.
    """

    name: str
    platform: Literal["tpu", "cuda"]
    memory_gb: float
    peak_tflops: float
    bandwidth_gbs: float
    gpu: Gpu | None = None
    tf32_tflops: float | None = None

    def peak(self, dtype: str) -> float | None:
        """Operations per second on matrices of a type, in 1e12; None where the data sheet does not say."""
        return self.tf32_tflops if dtype == "float32" else self.peak_tflops


@dataclass(frozen=True)
class Gpu:
    """What XLA's compiler takes into account of a GPU: its multiprocessors by the CUDA programming guide.

    Attributes:
        capability: compute capability, (major, minor).
        cores, fpus: multiprocessors, and float32 units of each.
        clock_ghz: boost clock.
        l2_mb: second-level cache in 2**20 bytes.
        shared_kb, block_kb: shared memory of a multiprocessor, and the most that one block may ask for, in 1024 bytes.
        threads: most that a multiprocessor holds.
    """

    capability: tuple[int, int]
    cores: int
    fpus: int
    clock_ghz: float
    l2_mb: int
    shared_kb: int
    block_kb: int
    threads: int = 2048


_HOPPER = Gpu((9, 0), cores=132, fpus=128, clock_ghz=1.98, l2_mb=50, shared_kb=228, block_kb=227)
_ADA = Gpu((8, 9), cores=128, fpus=128, clock_ghz=2.52, l2_mb=72, shared_kb=100, block_kb=99, threads=1536)
CHIPS = {
    "v4": Chip("TPU v4", "tpu", 32, 275, 1228),
    "v5e": Chip("TPU v5 lite", "tpu", 16, 197, 819),
    "v5p": Chip("TPU v5", "tpu", 95, 459, 2765),
    "v6e": Chip("TPU v6 lite", "tpu", 32, 918, 1640),
    "a100": Chip("NVIDIA A100-SXM4-80GB", "cuda", 80, 312, 2039, Gpu((8, 0), 108, 64, 1.41, 40, 164, 163), 156),
    "h100": Chip("NVIDIA H100 80GB HBM3", "cuda", 80, 989.4, 3350, _HOPPER, 494.7),
    "h200": Chip("NVIDIA H200", "cuda", 141, 989.4, 4800, _HOPPER, 494.7),
    "rtx4090": Chip("NVIDIA GeForce RTX 4090", "cuda", 24, 165.2, 1008, _ADA, 82.6),
}
"""By the first half of a topology's name."""

_TPU_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
}
"""Without these the TPU's plug-in asks a server of the cloud who it is, or refuses a second process."""
_GPU_OPTIONS = {"xla_gpu_enable_triton_gemm": False, "xla_gpu_autotune_level": 0}
"""Trying kernels needs the device."""


@dataclass(frozen=True)
class Topology:
    """Devices to compile for.

    Attributes:
        name: as the user wrote it.
        chip: what each device is.
        devices: that need not exist; placing arrays on them fails then.
        present: whether they are this machine's.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]
    present: bool = False

    def mesh(self, fsdp: int | None = None) -> Mesh:
        """Mesh of jaxad's axes over the devices, `fsdp` of which (all, by default) share parameters."""
        return parallel.make_mesh(fsdp or len(self.devices), self.devices)

    def compile(self, traced: jax.stages.Traced) -> jax.stages.Compiled:
        """The program compiled for the chip; its arguments lie on a mesh of `devices`."""
        if self.present:
            return traced.lower().compile()
        options = _GPU_OPTIONS if self.chip.platform == "cuda" else None
        return traced.lower(lowering_platforms=(self.chip.platform,)).compile(options)


def find_topology(name: str) -> Topology:
    """The topology of that name.

    Raises:
        ConfigError: no such chip, or a size that it does not come in; or its plug-in is not installed, and which extra
            of jaxad brings it.
    """
    kind, _, size = name.partition(":")
    chip = CHIPS.get(kind)
    if chip is None:
        raise ConfigError(f"topology = {name!r}: no such chip; there are {', '.join(CHIPS)}")
    if chip.platform == "tpu":
        sides = "x".join(["1"] * (3 if kind in ("v4", "v5p") else 2))
        size = size or sides
        if not re.fullmatch(sides.replace("1", "[1-9][0-9]*"), size):
            like = "2x2x1" if kind in ("v4", "v5p") else "2x4"
            raise ConfigError(f"topology = {name!r}: needs the chips along each side, such as {kind}:{like}")
        number = math.prod(map(int, size.split("x")))
        if found := _at_hand(chip, number):
            return Topology(name, chip, found, present=True)
        return Topology(name, chip, _tpus(name, f"{kind}:{size}", number))
    if not re.fullmatch("[1-8]?", size):
        raise ConfigError(f"topology = {name!r}: needs the number of GPUs, 1 to 8, such as {kind}:8")
    number = int(size or 1)
    if found := _at_hand(chip, number):
        return Topology(name, chip, found, present=True)
    return Topology(name, chip, _gpus(name, chip, number))


def find_topologies(names: Sequence[str]) -> list[Topology]:
    """The topologies of those names, all found before anything is compiled for one.

    Raises:
        ConfigError: as `find_topology`.
    """
    return [find_topology(name) for name in names]


def _at_hand(chip: Chip, number: int) -> tuple[Any, ...]:
    """So many of this machine's devices, if it has them, else none."""
    # A TPU is not asked for in vain: without one its plug-in waits for a server of the cloud.
    if chip.platform == "tpu" and not any(Path("/dev").glob("accel*")) and not any(Path("/dev/vfio").glob("[0-9]*")):
        return ()
    found = [device for device in jax.local_devices() if device.device_kind == chip.name]
    return tuple(found[:number]) if len(found) >= number else ()


def _tpus(name: str, topology: str, chips: int) -> tuple[Any, ...]:
    for variable, value in _TPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    bounds = {"chips_per_host_bounds": (1, 1, 1)} if chips == 1 else {}
    try:
        devices = topologies.get_topology_desc(platform="tpu", topology_name=topology, **bounds).devices
    except (RuntimeError, NotImplementedError, ImportError) as error:
        raise _not_compiled_for(name, "tpu", error) from error
    # Some chips are two devices.
    return tuple(devices)[:chips]


def _gpus(name: str, chip: Chip, number: int) -> tuple[Any, ...]:
    try:
        description = topologies.get_topology_desc(
            platform="cuda", topology_name="", target_config=_gpu_target(chip), topology=f"1x1x{number}"
        )
    except (RuntimeError, NotImplementedError, ImportError) as error:
        raise _not_compiled_for(name, "cuda12", error) from error
    return tuple(description.devices)


def _not_compiled_for(name: str, extra: str, error: Exception) -> ConfigError:
    reason = str(error).strip().splitlines()[0]
    return ConfigError(
        f"topology = {name!r}: its compiler is not here, or does not know it: pip install 'jaxad[{extra}]' ({reason})"
    )


def _gpu_target(chip: Chip) -> str:
    """XLA's description of a GPU, as protobuf text."""
    gpu = chip.gpu
    assert gpu is not None
    major, minor = gpu.capability
    accelerated = " feature_extension: ACCELERATED_FEATURES" if major >= 9 else ""
    device = {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "shared_memory_per_block": 48 << 10,
        "shared_memory_per_core": gpu.shared_kb << 10,
        "shared_memory_per_block_optin": gpu.block_kb << 10,
        "threads_per_core_limit": gpu.threads,
        "core_count": gpu.cores,
        "fpus_per_core": gpu.fpus,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 2**16 - 1,
        "block_dim_limit_z": 2**16 - 1,
        "thread_dim_limit_x": 1024,
        "thread_dim_limit_y": 1024,
        "thread_dim_limit_z": 64,
        "registers_per_core_limit": 2**16,
        "registers_per_block_limit": 2**16,
        "memory_bandwidth": int(chip.bandwidth_gbs * 1e9),
        "device_memory_size": int(chip.memory_gb * 1e9),
        "l2_cache_size": gpu.l2_mb << 20,
        "clock_rate_ghz": gpu.clock_ghz,
        "device_address_bits": 64,
        "name": f'"{chip.name}"',
        "device_vendor": '"NVIDIA Corporation"',
        "platform_version": f'"Compute Capability {major}.{minor}"',
    }
    fields = "\n".join(f"  {key}: {value}" for key, value in device.items())
    capability = f"  cuda_compute_capability {{ major: {major} minor: {minor}{accelerated} }}"
    versions = "\n".join(f'  {kind}_version: "12.8.0"' for kind in ("driver", "runtime", "compile_time_toolkit"))
    return (
        f'gpu_device_info {{\n{fields}\n{capability}\n{versions}\n  dnn_version: "9.10.0"\n}}\n'
        'platform_name: "CUDA"\ndnn_version_info { major: 9 minor: 10 patch: 0 }\n'
        f'device_description_str: "{chip.name}"\n'
    )
