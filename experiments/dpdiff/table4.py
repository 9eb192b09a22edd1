"""DPDiff-AD, Table 4: images per second at batch size 64, of DPDiff-AD and detectors that it is compared with.

Command (one GPU; random weights but for DiAD):
    python -m experiments.dpdiff.table4 --out runs/dpdiff-table4 --stable-diffusion weights/v1-5

Expected: 101 images per second for DPDiff-AD on an RTX 4090, between Dinomaly (127) and diffusion on images (4 to 11).
They are those of other code on another machine, so that the relations count; that they hardly differ between the data
sets is a property of the programs, which see images of one size: here one row stands for all. "program" is the network
alone, "from files" with reading and resizing JPEGs of 1024 pixels. DDAD and TransFusion are not built here. Rows
without a published rate are further detectors of this library; those that remember images have seen two dozen. With
--topology rtx4090:1 rates are what a plan for that card allows at most. `jaxad bench dpdiff` has more of the same, of
any checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import jax
import tyro

from jaxad import data, parallel
from jaxad.bench._detector_speed import prediction_speed
from jaxad.bench._topologies import Topology, find_topologies
from jaxad.bench.dpdiff import detector_plans
from jaxad.detector import Remembers, detectors
from jaxad.io.atomic import write_whole
from jaxad.io.json_files import json_text
from jaxad.io.version import versions
from jaxad.testing import make_parts

PUBLISHED = {"HVQ-Trans": 362.455, "UniAD": 341.672, "Dinomaly": 126.875, "DiAD": 3.981, "DPDiff-AD": 101.233}
"""The average over five data sets."""
ROWS = {
    "HVQ-Trans": ("hvq-trans", "paper"),
    "UniAD": ("uniad", "paper"),
    "Dinomaly": ("dinomaly", "paper"),
    "DiAD": ("vlmdiff", "diad"),
    "DPDiff-AD": ("dpdiff", "paper"),
    "ViTAD": ("vitad", "paper"),
    "RD4AD": ("rd4ad", "paper"),
    "SimpleNet": ("simplenet", "paper"),
    "INP-Former": ("inp-former", "paper"),
    "linear": ("linear", "paper"),
    "PaDiM": ("padim", "paper"),
    "patch bank": ("patch-bank", "paper"),
}
"""Name and preset of each detector."""
Name = Literal[
    "HVQ-Trans",
    "UniAD",
    "Dinomaly",
    "DiAD",
    "DPDiff-AD",
    "ViTAD",
    "RD4AD",
    "SimpleNet",
    "INP-Former",
    "linear",
    "PaDiM",
    "patch bank",
]
FILE = "speed.json"
PLANNED = "bfloat16"
"""Compute type of plans."""


@dataclass(frozen=True)
class Table4:
    """Time the prediction of each detector."""

    out: Path
    """Folder of the record, speed.json."""
    rows: tuple[Name, ...] = get_args(Name)
    """Which of them."""
    backbone: str = "random:768x12"
    """Untrained network in place of each backbone but DiAD's, "random:WIDTHxDEPTH", or weights."""
    stable_diffusion: str | None = None
    """Stable Diffusion 1.5 of DiAD, whose row is left out if not given: untrained ones have another shape."""
    image_size: int | None = None
    """Side of the square input in pixels; each preset's if not given."""
    batch_size: int = 64
    """Images at once."""
    seconds: float = 10.0
    """Of each measurement, about."""
    topology: tuple[str, ...] = ()
    """Plan for these accelerators, which need not be there, instead: rtx4090:1, h100:1. Rates are then at most."""


def main(options: Table4) -> dict[str, dict[str, Any]]:
    """Prints images per second beside the published ones; returns what was measured by row.

    Raises:
        ConfigError: an unknown topology, or one whose compiler is not installed.
    """
    topologies = find_topologies(options.topology)
    found: dict[str, dict[str, Any]] = {}
    heads = options.topology or ("program", "from files")
    print(f"{'row':12} " + " ".join(f"{head:>10}" for head in (*heads, "published")))
    for name in options.rows:
        detector = _created(name, options)
        if detector is None:
            print(f"{name}: left out; give its Stable Diffusion with --stable-diffusion", flush=True)
            continue
        if topologies:
            found[name] = {each.name: _planned(detector, each, options.batch_size) for each in topologies}
            rates = [row["images_per_second"] if row["fits"] else math.nan for row in found[name].values()]
        else:
            how = (options.batch_size, parallel.make_mesh(), options.seconds)
            found[name] = prediction_speed(detector, detector.protocol, *how)
            rates = [found[name][key] for key in ("images_per_second", "end_to_end_images_per_second")]
        published = f"{PUBLISHED[name]:10.1f}" if name in PUBLISHED else f"{'-':>10}"
        print(f"{name:12} " + " ".join(f"{rate:10.1f}" for rate in rates), published, flush=True)
        record = {"rows": found, "batch_size": options.batch_size, "versions": versions()}
        write_whole(options.out / FILE, json_text(record, indent=1) + "\n")
    return found


def _created(name: Name, options: Table4) -> Any:
    """The detector of a row, which has seen what it remembers; None where its networks are not given."""
    kind, preset = ROWS[name]
    if kind == "vlmdiff" and options.stable_diffusion is None:
        return None
    cls = detectors.get(kind)
    changes: dict[str, Any] = {} if options.image_size is None else {"image_size": options.image_size}
    if options.topology:
        changes["precision"] = PLANNED
    if kind == "vlmdiff":
        changes["stable_diffusion"] = options.stable_diffusion
    # No untrained transformer is the ResNet-50 that DiAD compares features of.
    if kind != "vlmdiff" or not options.backbone.startswith("random:"):
        changes["backbone"] = options.backbone
    detector = cls.create(cls.config_class.preset(preset, **changes), key=jax.random.key(0))
    if isinstance(detector, Remembers):
        with TemporaryDirectory() as folder:
            detector.remember(data.load(f"folder:{make_parts(Path(folder) / 'parts')}").train)
    else:
        detector.categories = ("part",)
    return detector


def _planned(detector: Any, topology: Topology, batch_size: int) -> dict[str, Any]:
    how: Any = {"programs": ("prediction",), "batch_sizes": (batch_size,), "protocol": detector.protocol}
    (row,) = detector_plans(topology, detector, None, about={"dtype": PLANNED}, filled=lambda: detector, **how)
    return row


if __name__ == "__main__":
    main(tyro.cli(Table4, description=__doc__))
