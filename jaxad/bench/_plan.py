"""What a program takes of an accelerator, by the plan of its own compiler, and the time that its data sheet allows."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr

from jaxad.bench._account import markdown
from jaxad.bench._compiled import account
from jaxad.bench._topologies import Topology, find_topology

USABLE = 0.95
"""Share of the memory that a program can have, where the allocator is given all: the rest is the runtime's."""


def plan(traced: jax.stages.Traced, topology: Topology, *, images: int) -> dict[str, Any]:
    """Compiles a program for devices that need not be there.

    Args:
        traced: the program, its arguments on a mesh of the topology's devices.
        topology: the devices.
        images: that one run is about, on all devices together.

    Returns:
        `topology`, `device`, `devices`; `gb` of each device in 1e9 bytes: `arguments`, `results` that take no place of
        an argument, `temporaries` and `total`; `fits`, whether `USABLE` of the device holds the total; `tflop` of all
        devices, of matrix products and convolutions; `traffic_gb` of one device; `intensity`, operations per byte;
        `collectives` and `kernels` of one device; `largest_float32`; `roofline_ms`, the least time, and `bound`, what
        makes it so: "compute" or "memory"; `images_per_second` at that time; `compile_seconds`.
    """
    began = time.perf_counter()
    compiled = topology.compile(traced)
    seconds = time.perf_counter() - began
    stats: Any = compiled.memory_analysis()
    gb = {
        "arguments": stats.argument_size_in_bytes / 1e9,
        "results": (stats.output_size_in_bytes - stats.alias_size_in_bytes) / 1e9,
        "temporaries": stats.temp_size_in_bytes / 1e9,
    }
    total, chip = sum(gb.values()), topology.chip
    found, flop = account(compiled.as_text() or ""), matrix_operations(traced)
    share = flop / len(topology.devices)
    times = {"compute": share / (chip.peak_tflops * 1e12), "memory": found.traffic / (chip.bandwidth_gbs * 1e9)}
    bound = max(times, key=lambda name: times[name])
    return {
        "topology": topology.name,
        "device": chip.name,
        "devices": len(topology.devices),
        "gb": {**gb, "total": total},
        "fits": total <= USABLE * chip.memory_gb,
        "tflop": flop / 1e12,
        "traffic_gb": found.traffic / 1e9,
        "intensity": share / found.traffic if found.traffic else math.inf,
        "collectives": found.collectives,
        "kernels": found.kernels,
        "largest_float32": found.largest_float32,
        "roofline_ms": 1e3 * times[bound],
        "bound": bound,
        "images_per_second": images / times[bound] if times[bound] else math.inf,
        "compile_seconds": seconds,
    }


def print_plans(names: Sequence[str], plans: Callable[[Topology], Iterator[dict[str, Any]]]) -> None:
    """Prints plans as they come, a line of JSON each, and at the end a table to stderr.

    Args:
        names: of topologies; all are found before the first is compiled for.
        plans: gives those of a topology.

    Raises:
        ConfigError: an unknown topology, or one whose compiler is not installed.
    """
    topologies, rows = [find_topology(name) for name in names], []
    try:
        for topology in topologies:
            for row in plans(topology):
                print(json.dumps(row), flush=True)
                rows.append(row)
    finally:
        # Also where a row fails.
        print(table(rows), file=sys.stderr)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Plans as a table in Markdown."""
    heads = ["program", "topology", "images", "GB per device", "fits", "TFLOP", "GB moved", "least ms", "bound"]
    heads += ["images/s at most", "largest float32", "kernels", "collectives"]
    lines = []
    for row in rows:
        collectives = "; ".join(f"{name} x {counted['runs']}" for name, counted in row["collectives"].items())
        kernels = "; ".join(f"{name} x {number}" for name, number in row["kernels"].items())
        line = [row["program"], row["topology"], row["batch_size"], f"{row['gb']['total']:.1f}"]
        line += ["yes" if row["fits"] else "no", f"{row['tflop']:.2f}", f"{row['traffic_gb']:.1f}"]
        line += [f"{row['roofline_ms']:.1f}", row["bound"], f"{row['images_per_second']:.0f}"]
        lines.append([*line, row["largest_float32"], kernels, collectives])
    return markdown(heads, lines)


def matrix_operations(traced: jax.stages.Traced) -> float:
    """Multiplications and additions of all matrix products and convolutions of a program, loops counted in full.

    Where platforms go different ways, that of the most operations counts: kernels hide theirs.
    """
    return _operations(traced.jaxpr.jaxpr)


def _operations(jaxpr: Jaxpr) -> float:
    total = 0.0
    for equation in jaxpr.eqns:
        name, parameters = equation.primitive.name, equation.params
        shapes: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
        if name == "dot_general":
            (contracted, _), _ = parameters["dimension_numbers"]
            summed = math.prod(shapes[0].shape[axis] for axis in contracted)
            total += 2 * math.prod(shapes[-1].shape) * summed
        elif name == "conv_general_dilated":
            kernel = shapes[1].shape
            features = parameters["dimension_numbers"].rhs_spec[0]
            total += 2 * math.prod(shapes[-1].shape) * math.prod(kernel) / kernel[features]
        elif inner := [_operations(part) for part in _parts(parameters) if name != "pallas_call"]:
            times = parameters["length"] if name == "scan" else 1
            total += times * (max(inner) if name == "cond" else sum(inner))
    return total


def _parts(values: Any) -> Iterator[Jaxpr]:
    """The programs inside an equation, each once."""
    for value in values.values() if isinstance(values, dict) else values:
        if isinstance(value, ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, Jaxpr):
            yield value
        elif isinstance(value, tuple | list):
            yield from _parts(value)
