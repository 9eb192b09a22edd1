"""The page of the scaling study: tables, curves, and whether memory and time are flat.

Command (after, or during, `study.py` with the same --out):
    python -m experiments.scaling.page --out runs/scaling

Expected: scaling.md and scaling.svg in --out, and scaling.json in the form of docs/benchmarks, from what is finished.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import tyro

from experiments.drawing import Panel, write_curves
from jaxad.errors import DataError
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.version import versions
from jaxad.metrics import LABELS, summarize

ROWS = "rows.json"
"""What `study.py` leaves in its folder."""
ORDER = 33
"""Place of the measurement on the page of benchmarks."""
TOLERANCE = 1.1
"""Largest over smallest value of what is flat."""
ACCURACY = ("image_auroc", "pixel_ap", "aupro", "mad")
COMPARED = ("image_auroc", "pixel_ap")
"""Metrics that are shown of the same categories in every subset, too."""
Row = Mapping[str, Any]
GENERATOR = Path(__file__).parents[2] / "docs" / "benchmarks" / "generate.py"


@dataclass(frozen=True)
class Page:
    """Write the page of a scaling study."""

    out: Path
    """Folder of the study."""


@dataclass(frozen=True)
class Quantity:
    """What is to be flat: its name, its unit, its digits, and the value of a row, None where it has none."""

    name: str
    unit: str
    digits: int
    of: Callable[[Row], float | None]


QUANTITIES = (
    Quantity("memory of prepare", "GB", 3, lambda row: row["prepare"]["memory"] / 1e9),
    Quantity("memory of fit", "GB", 3, lambda row: row["fit"]["memory"] / 1e9),
    Quantity("memory of evaluate", "GB", 3, lambda row: row["evaluate"]["memory"] / 1e9),
    Quantity("time of a training step", "ms", 0, lambda row: _scaled(row["fit"]["step_seconds"], 1e3)),
    Quantity("time per image of evaluate", "ms", 1, lambda row: image_ms(row)),
)
FURTHER = Quantity("CPU time of a further image of evaluate", "ms", 1, lambda row: None)
"""Of two rows, see `further_ms`."""


def image_ms(row: Row) -> float | None:
    """Milliseconds by the clock of an image's evaluation, without start and compilation; None where it is not known."""
    rate = row["evaluate"]["images_per_second"]
    return 1e3 / rate if rate else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def series(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by data and detector, each in the order of their numbers of categories."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: len(row["names"])):
        found.setdefault((row["part"], row["detector"]), []).append(row)
    return found


def mean_of(row: Row, names: Sequence[str]) -> dict[str, float | None]:
    """Metrics of a row, means over these of its categories."""
    return summarize({name: row["evaluate"]["classes"][name] for name in names})


def further_ms(rows: Sequence[Row]) -> list[float | None]:
    """Processor milliseconds of `evaluate` for each image that a row has more than the one before, None for the first.

    Start and compilation, which all have, cancel; so do other jobs of the machine.
    """
    found: list[float | None] = [None]
    for before, row in pairwise(rows):
        less, more = before["evaluate"], row["evaluate"]
        found.append(1e3 * (more["cpu_seconds"] - less["cpu_seconds"]) / (more["tested"] - less["tested"]))
    return found


def verdicts(rows: Sequence[Row]) -> list[str]:
    """A line for each detector and quantity: its least and largest value, and whether it is flat."""
    lines = []
    for (part, detector), own in series(rows).items():
        if len(own) < 2 or part != "synthetic":
            continue
        # All detectors read the same prepared data.
        quantities = QUANTITIES[1:] if lines else QUANTITIES
        first, last = (len(row["names"]) for row in (own[0], own[-1]))
        columns = [(quantity, [quantity.of(row) for row in own]) for quantity in quantities]
        columns.append((FURTHER, further_ms(own)[1:]))
        for quantity, values in columns:
            known = [value for value in values if value is not None]
            if len(known) < max(len(values), 2):
                continue
            digits, unit = quantity.digits, quantity.unit
            slope = 1e3 * (known[-1] - known[0]) / (last - first)
            grown = f"; {slope:+.2f} MB for each further category" if unit == "GB" else ""
            lines.append(
                f"{detector}, {first} to {last} {part} categories, {quantity.name}: {min(known):.{digits}f} to "
                f"{max(known):.{digits}f} {unit}, flat within 10 %: {'yes' if is_flat(known) else 'no'}{grown}."
            )
    return lines


def is_flat(values: Sequence[float]) -> bool:
    """Whether the largest value exceeds the smallest by 10 % at most."""
    return max(values) <= TOLERANCE * min(values)


def comparisons(rows: Sequence[Row]) -> list[str]:
    """One model for all beside one for each category, and how far accuracy moves as others are added."""
    lines, found = [], series(rows)
    for (part, detector), own in found.items():
        same = own[0]["names"]
        if len(own) > 1:
            for metric in COMPARED:
                values = [mean_of(row, same)[metric] for row in own]
                known = [value for value in values if value is not None]
                if known and "each" not in detector:
                    points = 100 * (max(known) - min(known))
                    lines.append(
                        f"{detector}, {LABELS[metric].short} of the first {len(same)} {part} categories, which all "
                        f"subsets have: a range of {points:.1f} points over {len(own)} subsets."
                    )
        alone = found.get((part, f"{detector}, one each"))
        if alone and len(alone[-1]["names"]) == len(own[-1]["names"]):
            pairs = [(mean_of(row, row["names"])) for row in (own[-1], alone[-1])]
            said = ", ".join(
                f"{LABELS[metric].short} {_percent(pairs[0][metric])} and {_percent(pairs[1][metric])}"
                for metric in COMPARED
            )
            lines.append(
                f"{detector} on {len(own[-1]['names'])} {part} categories, one model for all and one for each: {said}."
            )
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.{digits}f}"


def tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracy, what fit and evaluate cost, and what prepare costs, as tables of docs/benchmarks."""
    accuracy, fits, evaluations, prepared = [], [], [], {}
    for (part, detector), own in series(rows).items():
        same = own[0]["names"]
        for row, further in zip(own, further_ms(own), strict=True):
            head = [part, str(len(row["names"])), detector]
            mean, compared = mean_of(row, row["names"]), mean_of(row, same)
            accuracy.append(
                head
                + [_percent(mean[metric]) for metric in ACCURACY]
                + [_percent(compared[metric]) for metric in COMPARED]
            )
            fit, evaluate, made = row["fit"], row["evaluate"], row["prepare"]
            fits.append(
                [
                    *head,
                    str(evaluate["trained"]),
                    _number(fit["seconds"], 0),
                    _number(fit["cpu_seconds"], 0),
                    _number(fit["step_seconds"], 2),
                    _number(fit["memory"], 2, 1e-9),
                    _number(fit["resident"], 2, 1e-9),
                    _number(fit["watched"], 2, 1e-9),
                    _number(fit["disk"], 2, 1e-9),
                ]
            )
            evaluations.append(
                [
                    *head,
                    str(evaluate["tested"]),
                    _number(evaluate["seconds"], 0),
                    _number(evaluate["cpu_seconds"], 0),
                    _number(image_ms(row), 1),
                    _number(further, 1),
                    _number(evaluate["memory"], 2, 1e-9),
                    _number(evaluate["resident"], 2, 1e-9),
                    _number(evaluate["disk"], 1, 1e-6),
                ]
            )
            if "each" not in detector:
                prepared[part, len(row["names"])] = [
                    part,
                    str(len(row["names"])),
                    str(evaluate["trained"] + evaluate["tested"]),
                    _number(made["seconds"], 0),
                    _number(made["cpu_seconds"], 0),
                    _number(made["memory"], 2, 1e-9),
                    _number(made["disk"], 2, 1e-9),
                ]
    names = ["data", "categories", "detector"]
    again = [f"{LABELS[metric].short}, first categories" for metric in COMPARED]
    memory = ["memory, GB", "with mapped files, GB"]
    return [
        {
            "caption": "Accuracy, percent; mean over the subset's categories, and over those of the smallest subset.",
            "columns": [*names, *(LABELS[metric].short for metric in ACCURACY), *again],
            "rows": accuracy,
        },
        {
            "caption": "What `jaxad fit` takes, start and compilation included.",
            "columns": [
                *names,
                "training images",
                "seconds",
                "CPU seconds",
                "seconds a step",
                *memory,
                "features on disk, GB",
                "run on disk, GB",
            ],
            "rows": fits,
        },
        {
            "caption": "What `jaxad evaluate` takes. Milliseconds are without start and compilation.",
            "columns": [
                *names,
                "test images",
                "seconds",
                "CPU seconds",
                "ms an image",
                "CPU ms a further image",
                *memory,
                "report, MB",
            ],
            "rows": evaluations,
        },
        {
            "caption": "What `jaxad prepare` takes.",
            "columns": ["data", "categories", "images", "seconds", "CPU seconds", "memory, GB", "on disk, GB"],
            "rows": list(prepared.values()),
        },
    ]


def panels(rows: Sequence[Row]) -> list[Panel]:
    """Accuracy, memory and time over the number of categories."""

    def curves(of: Callable[[Row], float | None]) -> dict[str, dict[float, float | None]]:
        return {
            f"{detector}, {part}": {len(row["names"]): of(row) for row in own}
            for (part, detector), own in series(rows).items()
        }

    x = "categories"
    drawn = [
        Panel(f"{LABELS[metric].short}, %", x, curves(lambda row, metric=metric: mean_of(row, row["names"])[metric]))
        for metric in COMPARED
    ]
    for quantity in QUANTITIES[1:3] + QUANTITIES[4:]:
        drawn.append(Panel(f"{quantity.name}, {quantity.unit}", x, curves(quantity.of), factor=1.0))
    return drawn


def measurement(found: Mapping[str, Any]) -> dict[str, Any]:
    """The study in the form of docs/benchmarks."""
    rows = found["rows"]
    parts = {
        part: max(len(row["names"]) for row in rows if row["part"] == part)
        for part in ("real", "synthetic")
        if any(row["part"] == part for row in rows)
    }
    steps = ", ".join(f"{found['steps'][part]} on {part} ones" for part in parts)
    side, backbone = found["image_size"], found["backbone"] or "the embedded ViT-S/14"
    dates = [record["date"] for row in rows for record in (row["prepare"], row["fit"], row["evaluate"])]
    protocols = sorted({row["evaluate"]["protocol"] for row in rows})
    return {
        "order": ORDER,
        "title": "From 1 to 160 categories in one model",
        "about": (
            "One model for all categories of nested subsets, the first in alphabetical order; preset small, or the one "
            f'that is named, at {side} px, {backbone}; optimizer steps of every training: {steps}. "One each" is a '
            "DPDiff-AD for each category "
            "alone, of as many steps as the one for all, one after the other: times and disk are sums, memory the "
            "largest. Memory is the most that processes held at once which no file backs; pages of mapped files, which "
            "the kernel takes back at need, are in the other column. Features are kept on disk, and every command "
            "compiles its programs anew. Synthetic categories (`experiments/scaling/synthetic_categories.py`) say what "
            "many categories cost, not how well real parts are judged."
        ),
        "command": [found["command"]],
        "data": "; ".join(f"{count} {part} categories" for part, count in parts.items()),
        "protocol": ", ".join(protocols),
        "seeds": [0],
        "machine": f"{found['machine']}, jax {versions()['jax']}",
        "date": max(dates)[:10],
        "tables": tables(rows),
        "findings": [*comparisons(rows), *verdicts(rows)],
    }


def main(options: Page) -> list[Path]:
    """Writes scaling.json, scaling.md and scaling.svg; returns these files.

    Raises:
        DataError: nothing is finished.
    """
    file = options.out / ROWS
    if not file.is_file():
        raise DataError(f"{options.out}: holds no {ROWS}; nothing is finished there, see study.py")
    found = json.loads(file.read_text("utf-8"))
    content = measurement(found)
    kept = write_whole(options.out / "scaling.json", json_text(content, indent=2) + "\n")
    svg, _ = write_curves(panels(found["rows"]), options.out, "scaling")
    generator = _generator()
    text = f"{generator.section(generator.load(kept))}\n\n![Curves](scaling.svg)\n"
    return [write_whole(options.out / "scaling.md", text), svg, kept]


def _generator() -> Any:
    """What writes the page of benchmarks."""
    spec = importlib.util.spec_from_file_location("generate", GENERATOR)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(*main(tyro.cli(Page, description=__doc__)), sep="\n")
