"""The metrics by the names they have in report.json, in the order of the field's tables, and their labels."""

from __future__ import annotations

from typing import NamedTuple


class Label(NamedTuple):
    """What a metric is called: what it is of, its name, and both where there is little room."""

    of: str
    name: str
    short: str


LABELS = {
    "image_auroc": Label("Image", "AUROC", "I-AUROC"),
    "image_ap": Label("Image", "AP", "I-AP"),
    "image_f1max": Label("Image", "F1-max", "I-F1max"),
    "pixel_auroc": Label("Pixel", "AUROC", "P-AUROC"),
    "pixel_ap": Label("Pixel", "AP", "P-AP"),
    "pixel_f1max": Label("Pixel", "F1-max", "P-F1max"),
    "aupro": Label("Pixel", "AUPRO", "AUPRO"),
    "mad": Label("Mean", "mAD", "mAD"),
}
METRICS = tuple(LABELS)
"""The seven metrics, and their mean."""
IMAGE_METRICS, PIXEL_METRICS = METRICS[:3], METRICS[3:7]
