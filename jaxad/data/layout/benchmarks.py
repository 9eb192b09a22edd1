"""Benchmarks whose own layout a folder shows, where `jaxad prepare` reads more of it than their names tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from jaxad.data.layout.tree import Folder
from jaxad.data.layout.words import word


def benchmark_of(folder: Folder, depth: int = 4) -> str:
    """The name under which `jaxad prepare` knows a folder, or one in it; "" where it looks like none."""
    names = {word(child.name) for child in folder.folders}
    own, above = word(folder.name), word(folder.path.absolute().parent.name)
    if {"logical_anomalies", "structural_anomalies"} & names:
        return "mvtec_loco"
    if any(re.fullmatch(r"realiadvariety_.*|real_iad_variety_jsons", name) for name in (*names, own)):
        return "real_iad_variety"
    if any(re.fullmatch(r"realiad_.*", name) for name in (*names, own)) or _shows_objects(folder):
        return "real_iad"
    if {"train2017", "val2017"} & names or any("instances_" in file.name for file in _annotations(folder)):
        return "coco_ad"
    if (above, own) == ("data", "images") and {"normal", "anomaly"} & names:
        return "visa"
    return next(filter(None, (benchmark_of(child, depth - 1) for child in folder.folders)), "") if depth else ""


def _shows_objects(folder: Folder) -> bool:
    """Real-IAD: <category>/OK/S0001/*, NG/<code>/S0001/*."""
    return any(
        re.fullmatch(r"s\d{3,}", word(inner.name))
        for child in folder.folders
        if word(child.name) == "ok"
        for inner in child.folders
    )


def _annotations(folder: Folder) -> Iterator[Path]:
    return (file for child in folder.folders if word(child.name) == "annotations" for file in child.others)
