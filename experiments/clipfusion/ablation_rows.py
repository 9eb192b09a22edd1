"""The cells of CLIPFusion's ablations, Tables 3 to 6 and 9 to 11, and the runs that they come from under a reading.

Not an experiment itself; `readings.py` uses it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from experiments.clipfusion import table3, table4, table5, table6, table9, table10, table11
from experiments.clipfusion.rows import METRICS, Row, RowOptions
from jaxad.config import CLIPFusionConfig, to_json

TABLES = {3: table3, 4: table4, 5: table5, 6: table6, 9: table9, 10: table10, 11: table11}

COMBINED = "combined"

_CLIP = ("clip", "temperature", "vv_blocks", "windows", "prompt_mode")
_DIFFUSION = (
    *("diffusion", "image_size", "latents", "denoiser_input", "map_prompt", "reference_prompt", "states"),
    *("class_states", "language_timesteps", "attention_", "subtokens", "tap_place", "vision_prompt"),
)
_BOTH = ("map_weight", "score_weight")
_LANGUAGE = (
    *("clip_map", "clip_prompt", "clip_states", "prompt_mode", "temperature"),
    *("language_timesteps", "attention_", "subtokens", "fusion", "score_fusion"),
)
_VISION = (
    *("clip_block", "diffusion_taps", "tap_place", "vision_prompt", "reference_prompt"),
    *("per_category", "rotations", "fusion", "score_fusion"),
)
"""How the names of settings begin that say nothing where a model or a modality is not used."""


Values = dict["Cell", float]
"""Percent, of the cells that were run."""


class Cell(NamedTuple):
    """A published number, in percent."""

    table: int
    benchmark: str
    row: str
    metric: str
    published: float


@dataclass(frozen=True)
class Reading:
    """One way to read the paper.

    Attributes:
        name: how it is called.
        choice: the open point that it settles otherwise than the default; "" for a preset.
        preset: of CLIPFusionConfig.
        changes: fields that differ from the preset.
    """

    name: str
    choice: str = ""
    preset: str = "default"
    changes: tuple[tuple[str, Any], ...] = ()

    @property
    def settings(self) -> dict[str, Any]:
        """Fields that differ from the default."""
        preset = {name: value for name, value in CLIPFusionConfig.PRESETS[self.preset].items() if name != "label"}
        return {**preset, **dict(self.changes)}


def cells(tables: Sequence[int] = tuple(TABLES)) -> list[Cell]:
    """The published numbers of some tables."""
    return [
        Cell(number, benchmark, row, metric, value)
        for number in tables
        for benchmark, rows in TABLES[number].PUBLISHED.items()
        for row, values in rows.items()
        for metric, value in zip(METRICS, values, strict=True)
        if value is not None
    ]


def row_under(reading: Reading, table: int, name: str, options: RowOptions) -> Row:
    """The run that a row of a table is under a reading.

    Rows that cannot differ are equal: what does not count where a model or a modality is not used is the default's.
    """
    row = next(row for row in TABLES[table].ROWS if row.name == name)
    changed = replace(row, changes={**reading.settings, **row.changes})
    config = changed.config(options)
    ignored = [*_BOTH] if len(config.models) < 2 else []
    ignored += [] if "clip" in config.models else _CLIP
    ignored += [] if "diffusion" in config.models else _DIFFUSION
    ignored += [] if "language" in config.modalities else _LANGUAGE
    ignored += [] if "vision" in config.modalities and row.shots else _VISION
    default = CLIPFusionConfig()
    values = {
        f.name: getattr(default if f.name == "label" or f.name.startswith(tuple(ignored)) else config, f.name)
        for f in fields(config)
    }
    identity = json.dumps([to_json(CLIPFusionConfig(**values)), row.shots], sort_keys=True)
    return Row(hashlib.sha256(identity.encode()).hexdigest()[:12], "default", row.shots, values, row.category)


def percent_of(report: Mapping[str, Any], metric: str, category: str | None) -> float | None:
    """A metric of a report in percent, of all categories or of one."""
    value = (report["mean"] if category is None else report["classes"][category])[metric]
    return None if value is None else 100 * value


def distance(values: Values, of: Iterable[Cell]) -> tuple[float, float]:
    """Mean and root mean square distance from the published values in points, over some of the cells."""
    apart = [abs(values[cell] - cell.published) for cell in of]
    return (float(np.mean(apart)), float(np.sqrt(np.mean(np.square(apart))))) if apart else (np.nan, np.nan)


def common(wanted: Sequence[Cell], found: Mapping[str, Values]) -> list[Cell]:
    """The cells that all readings have."""
    return [cell for cell in wanted if found and all(cell in values for values in found.values())]


def combined(wanted: Sequence[Cell], taken: Sequence[Reading], found: Mapping[str, Values]) -> Reading | None:
    """For each open point the alternative that is nearest, where it is nearer than the default; None if fewer than
    two."""
    shared, best = common(wanted, found), {}
    if "default" not in found:
        return None
    default = distance(found["default"], shared)[0]
    for reading in taken:
        if reading.choice and reading.name in found:
            gain = default - distance(found[reading.name], shared)[0]
            if gain > best.get(reading.choice, (0.0, None))[0]:
                best[reading.choice] = gain, reading
    changes = tuple(pair for _, reading in best.values() for pair in reading.changes)
    return Reading(COMBINED, changes=changes) if len(best) > 1 else None


def account(wanted: Sequence[Cell], taken: Sequence[Reading], found: Mapping[str, Values]) -> dict[str, Any]:
    """How near each reading comes, JSON-ready: `best`, `readings` and `cells` as the head of `readings.py` has it."""
    shared = common(wanted, found)
    lines, rows = [], []
    for cell in wanted:
        ours = {name: values[cell] for name, values in found.items() if cell in values}
        apart = {name: abs(value - cell.published) for name, value in ours.items()}
        # Readings that share the run of a row are equally near.
        nearest = [name for name, value in apart.items() if value == min(apart.values())]
        lines.append({**cell._asdict(), "ours": ours, "nearest": nearest})
    for reading in taken:
        if reading.name in found:
            mean, square = distance(found[reading.name], shared)
            row = {"name": reading.name, "choice": reading.choice, "settings": reading.settings, "mean": mean}
            count = sum(reading.name in line["nearest"] for line in lines)
            rows.append({**row, "root_mean_square": square, "nearest_in": count})
    best = min(rows, key=lambda row: row["mean"], default=None) if shared else None
    return {"best": best and best["name"], "compared": len(shared), "readings": rows, "cells": lines}
