"""What the server costs over asking an inspector in a loop, and that memory and programs stay as they are.

    python -m tests.serve.benchmark RUN FOLDER [--requests 1000] [--clients 16]

Prints rows for docs/benchmarks/serve.json. The server is a process of its own on the same machine as its clients.
"""

from __future__ import annotations

import argparse
import http.client
import json
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import jaxad
from tests.serve.clients import ask, process


def loop(run: Path, files: Sequence[Path], requests: int, **options: Any) -> list[float]:
    """Seconds of each of so many calls of an inspector, one after another."""
    inspector, seconds = jaxad.load(run, **options), []
    inspector(files[0])
    for number in range(requests):
        begun = time.perf_counter()
        inspector(files[number % len(files)]).to_json()
        seconds.append(time.perf_counter() - begun)
    return seconds


def served(run: Path, files: Sequence[Path], requests: int, clients: int, *flags: object) -> dict[str, Any]:
    """Seconds of each of so many requests, and what the server says of itself after a fifth of them and at the end."""
    bodies = [file.read_bytes() for file in files]
    with process(run, *flags) as (port, _):

        def client(numbers: Sequence[int]) -> list[float]:
            connection, seconds = http.client.HTTPConnection("127.0.0.1", port, timeout=300), []
            for number in numbers:
                begun = time.perf_counter()
                connection.request("POST", "/inspect", bodies[number % len(bodies)])
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
                seconds.append(time.perf_counter() - begun)
            return seconds

        def phase(numbers: Sequence[int]) -> list[float]:
            with ThreadPoolExecutor(clients) as pool:
                parts = pool.map(client, [numbers[start::clients] for start in range(clients)])
                return [second for part in parts for second in part]

        first = phase(range(requests // 5))
        middle = _numbers(port)
        begun = time.perf_counter()
        rest = phase(range(requests // 5, requests))
        wall = time.perf_counter() - begun
        end = _numbers(port)
    return {
        "seconds": first + rest,
        "rate": len(rest) / wall,
        "programs": end["jaxad_programs_compiled_total"],
        "memory": (middle["process_resident_memory_bytes"], end["process_resident_memory_bytes"]),
        "batch": end["jaxad_batch_images_sum"] / end["jaxad_batch_images_count"],
    }


def percentiles(seconds: Sequence[float]) -> list[float]:
    """Milliseconds: p50, p95, p99."""
    return [round(float(value) * 1e3, 1) for value in np.percentile(seconds, (50, 95, 99))]


def _numbers(port: int) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in ask(port, None, "/metrics", "GET")[1].splitlines() if line[:1] != "#"]
    return {name: float(value) for name, value in lines}


def main() -> None:
    """Prints the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=16)
    arguments = parser.parse_args()
    files = [record.file for record in jaxad.data.ImageList(arguments.folder).records]
    alone = loop(arguments.run, files, min(arguments.requests, 200))
    print(json.dumps(["loop of calls, one thread", *percentiles(alone), round(len(alone) / sum(alone), 2)]))
    for clients in (1, arguments.clients):
        requests = arguments.requests if clients > 1 else min(arguments.requests, 200)
        found = served(arguments.run, files, requests, clients)
        row = [f"server, {clients} client(s)", *percentiles(found["seconds"]), round(found["rate"], 2)]
        middle, end = (value / 1e6 for value in found["memory"])
        said = f"{found['programs']:g} programs, {found['batch']:.2f} images a batch, {middle:.0f} then {end:.0f} MB"
        print(json.dumps(row), said, flush=True)


if __name__ == "__main__":
    main()
