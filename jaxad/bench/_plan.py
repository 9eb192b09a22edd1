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
from jax.interpreters import partial_eval

from jaxad.bench._account import markdown
from jaxad.bench._compiled import account
from jaxad.bench._measured import latencies, most_held, planned_gb, spread
from jaxad.bench._topologies import Topology
from jaxad.training.micro_batch import SHARE, UNTOLD
from jaxad.training.step import bytes_refused

SECONDS = 10.0
"""For which a program is timed, about."""


def plan(
    traced: jax.stages.Traced,
    topology: Topology,
    *,
    images: float,
    prepare: Callable[[], Callable[[], Any]],
    dtype: str = "bfloat16",
) -> dict[str, Any]:
    """Compiles a program for devices that need not be there; where they are, also times it.

    Args:
        traced: the program, its arguments on a mesh of the topology's devices.
        topology: the devices.
        images: that one run is about, on all devices together.
        prepare: places the program's arrays; returns what runs it once and waits for its end.
        dtype: compute type, "float32" or another: of nearly all products, where a program has several.

    Returns:
        `topology`, `device`, `devices`; `gb` of each device (`planned_gb`); `fits`, whether `SHARE` of it holds the
        total; `tflop` of all devices, of matrix products and convolutions; `traffic_gb` of one device; `intensity`,
        operations per byte; `collectives` and `kernels` of one device; `largest_float32`; `roofline_ms`, the least
        time, and `bound`, what makes it so: "compute" or "memory"; `images_per_second` at that time, all three None
        where the data sheet has no rate for `dtype`; `compile_seconds`.
        Of what the compiler refuses because a device has too little memory, no more than `gb`, its total None where
        the compiler does not say, and `fits`.
        Where the devices are at hand and the program fits, `measured`: how fast it was (`spread`), `mfu`, its
        operations as a share of what the devices could do in that time (None likewise), and what was held
        (`most_held`).
    """
    began = time.perf_counter()
    who: dict[str, Any] = {"topology": topology.name, "device": topology.chip.name, "devices": len(topology.devices)}
    try:
        compiled = topology.compile(traced)
    except jax.errors.JaxRuntimeError as error:
        if (needed := bytes_refused(error)) is None:
            raise
        total = None if needed == UNTOLD else needed / 1e9
        return {**who, "gb": {"total": total}, "fits": False, "compile_seconds": time.perf_counter() - began}
    seconds = time.perf_counter() - began
    gb, chip, peak = planned_gb(compiled), topology.chip, topology.chip.peak(dtype)
    found, flop = account(compiled.as_text() or ""), matrix_operations(traced)
    share = flop / len(topology.devices)
    times = {"memory": found.traffic / (chip.bandwidth_gbs * 1e9)}
    times |= {"compute": share / (peak * 1e12)} if peak else {}
    bound = max(times, key=lambda name: times[name])
    least = {
        "roofline_ms": 1e3 * times[bound],
        "bound": bound,
        "images_per_second": images / times[bound] if times[bound] else math.inf,
    }
    row = {
        **who,
        "gb": gb,
        "fits": gb["total"] <= limit_gb(topology),
        "tflop": flop / 1e12,
        "traffic_gb": found.traffic / 1e9,
        "intensity": share / found.traffic if found.traffic else math.inf,
        "collectives": found.collectives,
        "kernels": found.kernels,
        "largest_float32": found.largest_float32,
        **(least if peak else dict.fromkeys(least)),
        "compile_seconds": seconds,
    }
    if topology.present and row["fits"]:
        measured = spread(latencies(prepare(), SECONDS), images)
        mfu = share / (measured["ms"]["p50"] / 1e3) / (peak * 1e12) if peak else None
        row["measured"] = {**measured, "mfu": mfu, **most_held()}
    return row


def limit_gb(topology: Topology) -> float:
    """What a program may take of a device of the topology, in 1e9 bytes."""
    return SHARE * topology.chip.memory_gb


def largest_batch(gb: Callable[[int], float], limit: float, step: int) -> int:
    """The largest multiple of `step` whose program is within `limit`; 0 where not even the first is.

    Each number costs a compilation. Memory grows about linearly with the batch, so that the next number to try is where
    the line through the two nearest known ones meets the limit.

    Args:
        gb: what the program for so many images takes of each device.
        limit: of the same.
        step: images.
    """
    known: dict[int, float] = {}

    def holds(number: int) -> bool:
        known[number] = gb(number * step)
        return known[number] <= limit

    if not holds(1):
        return 0
    low, high, tried = 1, None, 2
    while high is None or high - low > 1:
        if holds(tried):
            low = tried
        else:
            high = tried
        told = [number for number in known if known[number] < math.inf]
        near = sorted(told, key=lambda number: abs(known[number] - limit))[:2]
        slope = (known[near[0]] - known[near[1]]) / (near[0] - near[1]) if len(near) == 2 else 0.0
        guess = near[0] + math.floor((limit - known[near[0]]) / slope) if slope > 0 else 2 * low
        tried = min(max(guess, low + 1), 64 * low if high is None else high - 1)
    return low * step


def print_plans(topologies: Sequence[Topology], plans: Callable[[Topology], Iterator[dict[str, Any]]]) -> None:
    """Prints plans as they come, a line of JSON each, and at the end a table to stderr.

    Args:
        topologies: to compile for, one after the other.
        plans: gives those of a topology.
    """
    rows = []
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
    heads = ["program", "topology", "images", "GB per device", "GB at the peak", "fits", "TFLOP", "GB moved"]
    heads += ["operations per byte", "least ms", "bound", "images/s at most", "largest float32", "kernels"]
    heads += ["collectives"]
    timed = any("measured" in row for row in rows)
    heads += ["ms measured", "MFU"] if timed else []
    lines: list[list[object]] = []
    for row in rows:
        line = [
            row["program"],
            row["topology"],
            row["batch_size"],
            *map(_gb, (row["gb"]["total"], row["gb"].get("peak"))),
        ]
        line.append("yes" if row["fits"] else "no")
        if "tflop" not in row:
            lines.append(line + [""] * (len(heads) - len(line)))
            continue
        collectives = "; ".join(
            f"{name} x {counted['runs']}, {counted['bytes'] / 1e9:.2g} GB"
            for name, counted in row["collectives"].items()
        )
        kernels = "; ".join(f"{name} x {number}" for name, number in row["kernels"].items())
        line += [f"{row['tflop']:.2f}", f"{row['traffic_gb']:.1f}", f"{row['intensity']:.0f}"]
        told = row["bound"] is not None
        line += [f"{row['roofline_ms']:.1f}", row["bound"], f"{row['images_per_second']:.0f}"] if told else [""] * 3
        line += [row["largest_float32"], kernels, collectives]
        measured = row.get("measured")
        lines.append(
            line + ([f"{measured['ms']['p50']:.1f}", _share(measured["mfu"])] if measured else ["", ""] * timed)
        )
    return markdown(heads, lines)


def _gb(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def matrix_operations(traced: jax.stages.Traced) -> float:
    """Multiplications and additions of all matrix products and convolutions of a program, loops counted in full.

    What no result depends on is left out, as compilers do: gradients of frozen parts, explanations nobody asks for.
    Where platforms go different ways, that of the most operations counts: kernels hide theirs.
    """
    whole = traced.jaxpr.jaxpr
    used, _ = partial_eval.dce_jaxpr(whole, [True] * len(whole.outvars))
    return _operations(used)


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
