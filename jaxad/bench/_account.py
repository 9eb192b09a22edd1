"""What a compiled program takes of each device, by its own plan; and its speed, where the device holds as much."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.bench.models import counted_operations, draw, fastest
from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.nn import module_state
from jaxad.types import Batch

CARDS_GB = (24, 80)
RESERVED_GB = 1.0
"""Of a card, for the CUDA context and the workspaces of its libraries."""

NOTE = (
    "Exact but for the temporaries (activations and gradients), which are what XLA's compiler plans, ordering "
    "operations for little memory; without a GPU it is that for CPUs, given the program that a GPU would get. A GPU's "
    "fuses more, but takes workspaces and other layouts for convolutions. As CPUs emulate bfloat16 in float32, the "
    "temporaries are then those of the float32 program, and the casts of all parameters come on top: the total is "
    "rather too large. So it is for several devices, where a CPU's compiler sums gradients before it divides them, and "
    "for remat, from which it gains little: what remat should spare is the difference in what is kept from the forward "
    "pass for the gradient (kept)."
)
COMPILER_OPTIONS = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED",
}
"""For CPUs: machine code is of no use here; and operations are ordered as on GPUs, where memory is what is scarce."""


def mesh_of(devices: int) -> Mesh:
    """Devices that share parameters (fsdp); more than there are become virtual ones of the CPU.

    Raises:
        ConfigError: more than there can be.
    """
    found = jax.devices() if devices <= jax.device_count() else jax.devices("cpu")
    if devices > len(found):
        raise ConfigError(
            f"devices = {devices}: there are {len(found)}; virtual ones need a process of their own that has not used "
            f"jax yet, or JAX_NUM_CPU_DEVICES={devices} in the environment"
        )
    return parallel.make_mesh(devices, found[:devices])


def on_cpu(mesh: Mesh) -> bool:
    """Whether the devices are CPUs, which emulate bfloat16."""
    return mesh.devices.flat[0].platform == "cpu"


def held(arrays: Any) -> float:
    """What placed arrays, or their shapes, take of one device, in 1e9 bytes."""
    leaves = jax.tree.leaves(arrays)
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves) / 1e9


def account_of(traced: jax.stages.Traced, mesh: Mesh, parts: Mapping[str, float]) -> dict[str, Any]:
    """Memory of each device, from the compiled program, which is not run.

    Args:
        traced: the program.
        mesh: devices; need not exist but as virtual ones.
        parts: what its arguments take, in 1e9 bytes.

    Returns:
        `gb`, the parts, `results`, `temporaries` and their `total`; `arguments`; `fits`, by card; `compiled_by` and
        `compile_seconds`.
    """
    emulated, began = on_cpu(mesh), time.perf_counter()
    lowered = traced.lower(lowering_platforms=("cuda",) if emulated else None)
    compiled = lowered.compile(COMPILER_OPTIONS if emulated else None)
    seconds = time.perf_counter() - began
    stats: Any = compiled.memory_analysis()
    results = (stats.output_size_in_bytes - stats.alias_size_in_bytes) / 1e9
    gb = {**parts, "results": results, "temporaries": stats.temp_size_in_bytes / 1e9}
    total = sum(gb.values())
    return {
        "gb": {**gb, "total": total},
        "arguments": stats.argument_size_in_bytes / 1e9,
        "fits": {str(card): total + RESERVED_GB <= card for card in CARDS_GB},
        "compiled_by": "XLA for CPU" if emulated else mesh.devices.flat[0].device_kind,
        "compile_seconds": seconds,
    }


def operations(traced: jax.stages.Traced) -> float:
    """Operations of a program in 1e12, by the compiler's account, which takes the body of a loop once."""
    return counted_operations(traced) / 1e12


def speed(account: Mapping[str, Any], prepare: Callable[[], Callable[[], Any]], images: int) -> dict[str, Any]:
    """Times a program, unless the device that jax has holds less than the account says.

    Args:
        account: of `account_of`.
        prepare: places the arrays; returns what runs the program once and waits for its end.
        images: of one run.

    Returns:
        `images_per_second`, `device` and, where the device tells, `peak_gb_so_far`; or `not_timed`, which says why.
    """
    device, total = jax.devices()[0], account["gb"]["total"]
    limit = (device.memory_stats() or {}).get("bytes_limit", math.inf) / 1e9
    if total > limit:
        return {"not_timed": f"needs {total:.1f} GB; jax may use {limit:.1f} GB of this {device.device_kind}"}
    rate = images / fastest(prepare(), 3)
    measured = {"images_per_second": rate, "device": device.device_kind}
    peak = (device.memory_stats() or {}).get("peak_bytes_in_use")
    return measured if peak is None else {**measured, "peak_gb_so_far": peak / 1e9}


def drawn(module: Any) -> Any:
    """A module that has no arrays, with random weights."""
    graphdef, shapes = module_state.split(module)
    noise = np.random.default_rng(0).standard_normal(1 << 20).astype(np.float32)
    arrays = {path: draw(path, leaf.shape, noise).astype(leaf.dtype) for path, leaf in shapes.items()}
    return module_state.merge(graphdef, arrays)


def batch_of(detector: Detector, batch: int, extras: Mapping[str, Any] | None = None) -> Batch:
    """Shapes of what a detector's `encode` gets for so many images.

    Args:
        detector: with or without arrays.
        batch: images b.
        extras: shapes of what else it asks to know of them (`Batch.extras`).
    """
    shape: Any = jax.ShapeDtypeStruct
    images = {name: shape((batch, v.height, v.width, 3), jnp.uint8) for name, v in detector.inputs.views.items()}
    number, valid = shape((batch,), jnp.uint32), shape((batch,), jnp.bool_)
    return Batch(images, number, valid, category=shape((batch,), jnp.int32), extras=dict(extras or {}))


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def random_like(shapes: Any) -> Any:
    """Random host arrays of such shapes and types."""
    generator = np.random.default_rng(0)

    def array(leaf: Any) -> np.ndarray:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return generator.standard_normal(leaf.shape, np.float32).astype(leaf.dtype)
        return generator.integers(0, 2 if leaf.dtype == jnp.bool_ else 256, leaf.shape).astype(leaf.dtype)

    return jax.tree.map(array, shapes)
