"""How fast a compiled program runs on the devices at hand, and what it takes of them."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

MOST_RUNS = 200
"""Of one program, however quick it is."""


def compiled(trace: Callable[[], jax.stages.Traced]) -> tuple[jax.stages.Traced, jax.stages.Compiled, float]:
    """What `trace` gives, compiled for the devices that it was traced for, and the seconds that all of it took."""
    began = time.perf_counter()
    traced = trace()
    program = traced.lower().compile()
    return traced, program, time.perf_counter() - began


def planned_gb(program: jax.stages.Compiled) -> dict[str, float]:
    """What a program takes of each device by its compiler's plan, in 1e9 bytes.

    Returns:
        `arguments`, `results` that take no place of an argument, `temporaries`, their `total`; and `peak`, the most
        that is held at one time, where the compiler tells.
    """
    stats: Any = program.memory_analysis()
    parts = {
        "arguments": stats.argument_size_in_bytes / 1e9,
        "results": (stats.output_size_in_bytes - stats.alias_size_in_bytes) / 1e9,
        "temporaries": stats.temp_size_in_bytes / 1e9,
    }
    total = {**parts, "total": sum(parts.values())}
    return {**total, "peak": stats.peak_memory_in_bytes / 1e9} if stats.peak_memory_in_bytes else total


def latencies(run: Callable[[], Any], seconds: float) -> list[float]:
    """Seconds of each of the runs that fit in `seconds`, at least 3 and at most `MOST_RUNS`, after one more.

    Args:
        run: runs the program once and waits for its end.
        seconds: for all of them.
    """
    run()
    times: list[float] = []
    while len(times) < 3 or (len(times) < MOST_RUNS and sum(times) < seconds):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return times


def spread(times: Sequence[float], images: float) -> dict[str, Any]:
    """`runs`; `ms` of a batch, the percentiles `p50`, `p95` and `p99`; `images_per_second` over all runs."""
    ms = dict(zip(("p50", "p95", "p99"), 1e3 * np.percentile(times, (50, 95, 99)), strict=True))
    rate = images * len(times) / sum(times)
    return {"runs": len(times), "ms": {name: float(value) for name, value in ms.items()}, "images_per_second": rate}


def most_held() -> dict[str, float]:
    """`peak_gb_so_far`, the most that a device has held since the process began, in 1e9 bytes.

    Where devices do not tell, as CPUs do not, it is `peak_process_gb_so_far`, the most that the process had in memory.
    """
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    told = [peak for peak in peaks if peak is not None]
    if told:
        return {"peak_gb_so_far": max(told) / 1e9}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"peak_process_gb_so_far": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
