"""CLIPFusion, Table 7: milliseconds for one image, with 0, 1, 2 and 4 references, of WinCLIP and CLIPFusion.

Command (one GPU; random weights, so that nothing is loaded):
    python -m experiments.clipfusion.table7 --out runs/clipfusion-table7

Expected: 783, 1240, 1269 and 1278 ms for CLIPFusion, 4782 to 9710 for WinCLIP, on an A100 of 40 GB. They are those of
other code on another machine, so that the relations count: CLIPFusion 6 to 8 times as fast. `jaxad bench clipfusion`
has more of the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from jaxad.bench.clipfusion import PUBLISHED_MS, Size, clipfusion_benchmark
from jaxad.config import Precision
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.version import versions

ROWS = {"WinCLIP": "winclip", "CLIPFusion": "default"}
FILE = "latency.json"


@dataclass(frozen=True)
class Table7:
    """Time both methods."""

    out: Path
    """Folder of the record, latency.json."""
    shots: tuple[int, ...] = (0, 1, 2, 4)
    """Numbers of references."""
    size: Size = "published"
    """The published networks, or smaller ones for a try."""
    dtype: Precision = "auto"
    """Compute type; "auto" takes that of other commands on this device."""
    repeats: int = 5
    """Timed runs; the fastest counts."""


def main(options: Table7) -> dict[str, list[dict[str, Any]]]:
    """Prints milliseconds beside the published ones; returns what the benchmark measured, by method."""
    found: dict[str, list[dict[str, Any]]] = {}
    how: dict[str, Any] = {"size": options.size, "dtype": options.dtype, "repeats": options.repeats}
    print(f"{'ms':24} " + " ".join(f"{shots:>7}-shot" for shots in options.shots))
    for name, preset in ROWS.items():
        found[name] = list(clipfusion_benchmark(options.shots, preset=preset, **how))  # type: ignore[arg-type]
        known = [PUBLISHED_MS[preset].get(shots) for shots in options.shots]
        print(f"{name:12} {'ours':11} " + " ".join(f"{row['ms']:12.1f}" for row in found[name]))
        print(f"{'':12} {'published':11} " + " ".join(f"{'-' if ms is None else ms:>12}" for ms in known), flush=True)
        write_whole(options.out / FILE, json_text({"rows": found, "versions": versions()}, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main(tyro.cli(Table7, description=__doc__))
