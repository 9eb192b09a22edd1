"""VLMDiff, Tables 15 and 16: every category of Real-IAD, one detector for all, 100 epochs.

Command (prepared Real-IAD; one GPU; the two tables are one run):
    python -m experiments.vlmdiff.table15 --captions /data/captions --autoencoder-start kl-f8.ckpt
From the report of a finished run, e.g. of `results.py` or `jaxad evaluate --protocol diad`:
    python -m experiments.vlmdiff.table15 --report runs/vlmdiff/reports/real_iad/seed-1/report.json

Expected: means 78.0, 97.1 and 87.7 for VLMDiff, 75.6, 88.0 and 58.1 for DiAD. Categories have their official names:
rolled_strip_base, sim_card_set, terminalblock and vcpill are "rolled strip", "sim card", "terminal/block" and "w/pill"
in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from experiments.by_category import read_report, show_categories
from experiments.records import Printed
from experiments.vlmdiff.rows import METRICS, PROTOCOL, TITLES, DetectorName, Mean, RowOptions, Table

DATA = "real_iad"

PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "DiAD": {
        "audiojack": (76.5, 91.6, 63.3),
        "bottle_cap": (91.6, 94.6, 73.0),
        "button_battery": (80.5, 84.1, 66.9),
        "end_cap": (85.1, 81.3, 38.2),
        "eraser": (80.0, 91.1, 67.5),
        "fire_hood": (83.3, 91.8, 66.7),
        "mint": (76.7, 91.1, 64.2),
        "mounts": (75.3, 84.3, 48.8),
        "pcb": (86.0, 92.0, 66.5),
        "phone_battery": (82.3, 96.8, 85.4),
        "plastic_nut": (71.9, 81.1, 38.6),
        "plastic_plug": (88.7, 92.9, 66.1),
        "porcelain_doll": (72.6, 93.1, 70.4),
        "regulator": (72.1, 84.2, 44.4),
        "rolled_strip_base": (68.4, 87.7, 63.4),
        "sim_card_set": (72.6, 89.9, 60.4),
        "switch": (73.4, 90.5, 64.2),
        "tape": (73.9, 81.7, 47.3),
        "terminalblock": (62.1, 75.5, 38.5),
        "toothbrush": (91.2, 82.0, 54.5),
        "toy": (66.2, 82.1, 50.3),
        "toy_brick": (68.4, 93.5, 66.4),
        "transistor1": (73.1, 88.6, 58.1),
        "u_block": (75.2, 88.8, 54.2),
        "usb": (58.9, 78.0, 28.0),
        "usb_adaptor": (76.9, 94.0, 75.5),
        "vcpill": (64.1, 90.2, 60.8),
        "wooden_beads": (62.1, 85.0, 45.6),
        "woodstick": (74.1, 90.9, 60.7),
        "zipper": (86.0, 90.2, 53.5),
        "mean": (75.6, 88.0, 58.1),
    },
    "VLMDiff": {
        "audiojack": (77.5, 97.8, 87.1),
        "bottle_cap": (77.3, 98.4, 92.3),
        "button_battery": (72.8, 96.9, 74.5),
        "end_cap": (71.6, 96.4, 85.9),
        "eraser": (78.9, 98.2, 89.6),
        "fire_hood": (73.2, 98.3, 89.4),
        "mint": (64.3, 93.8, 73.0),
        "mounts": (78.7, 98.8, 93.2),
        "pcb": (82.5, 98.3, 88.9),
        "phone_battery": (80.8, 91.1, 90.2),
        "plastic_nut": (80.6, 98.7, 93.4),
        "plastic_plug": (70.5, 97.1, 86.0),
        "porcelain_doll": (72.6, 97.7, 88.7),
        "regulator": (61.7, 97.7, 88.0),
        "rolled_strip_base": (86.6, 99.6, 98.3),
        "sim_card_set": (92.9, 98.3, 90.0),
        "switch": (83.9, 96.8, 90.7),
        "tape": (89.5, 99.3, 96.9),
        "terminalblock": (82.1, 99.4, 96.2),
        "toothbrush": (80.3, 95.1, 84.8),
        "toy": (68.4, 90.8, 78.8),
        "toy_brick": (72.8, 96.1, 85.6),
        "transistor1": (82.4, 96.7, 85.5),
        "u_block": (79.8, 98.5, 90.3),
        "usb": (88.7, 99.4, 96.3),
        "usb_adaptor": (71.6, 95.6, 78.5),
        "vcpill": (83.5, 97.3, 85.2),
        "wooden_beads": (73.5, 97.2, 85.8),
        "woodstick": (69.2, 95.6, 79.2),
        "zipper": (91.8, 97.5, 87.7),
        "mean": (78.0, 97.1, 87.7),
    },
}
"""By detector and category; "mean" is the tables' average."""
MEANS = {DATA: PUBLISHED["VLMDiff"]["mean"], f"{DATA}, DiAD": PUBLISHED["DiAD"]["mean"]}
"""The rows that are trained."""


@dataclass(frozen=True)
class Table15(RowOptions):
    """One row for each category."""

    report: Path | None = None
    """report.json of a finished evaluation of VLMDiff; trains and evaluates a detector if not given."""


def main(options: Table15) -> dict[str, dict[str, Mean]]:
    """Prints ours beside the published values, category by category; returns them by detector."""
    if options.report is not None:
        return {"vlmdiff": show("vlmdiff", [read_report(options.report, PROTOCOL, METRICS)])}
    rows = {}
    for data in options.data or (DATA,):
        table = Table(options, MEANS, "Tables 15 and 16")
        for detector in options.detectors:
            name = f"{data}, {TITLES[detector]}" if detector != "vlmdiff" else data
            table.row(name, data, detector=detector)
            rows[detector] = rows.get(detector, {}) | show(detector, table.reports[name])
    return rows


def show(detector: DetectorName, reports: Sequence[dict[str, Any]]) -> dict[str, Mean]:
    """Prints the categories of some reports, one for each seed, and their mean; returns them by category."""
    printed = Printed("VLMDiff, Tables 15 and 16", PROTOCOL, METRICS, PUBLISHED[TITLES[detector]], DATA)
    return show_categories(f"{TITLES[detector]}, category by category", printed, reports)


if __name__ == "__main__":
    main(tyro.cli(Table15, description=__doc__))
