"""Reports of made-up detectors on the same images, in folders as `jaxad evaluate` leaves them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.inference.decisions import Decision
from jaxad.inference.results import Evaluation
from jaxad.metrics import ClassMetrics, protocol, summarize
from jaxad.report.page import write_report

CATEGORIES = ("bottle", "screw")


def write_made(
    folder: Path,
    skill: float,
    *,
    seed: int | None = 0,
    categories: Sequence[str] = CATEGORIES,
    images: int = 30,
    under: str = "exact-256",
    system: str = "toy",
    config: Mapping[str, Any] | None = None,
    pixels: str = "aa",
) -> Path:
    """Writes report.json and images.csv of a detector whose anomalous images score higher by `skill`.

    Returns:
        The folder.
    """
    classes, decisions = {}, []
    rng = np.random.default_rng([int(100 * skill), seed or 0])
    for category in categories:
        labels = np.arange(images) % 3 % 2
        scores = skill * labels + rng.normal(size=images)
        metrics = ClassMetrics(protocol(under).rules)
        masks = [np.eye(8, dtype=bool) if label else None for label in labels]
        maps = (skill * np.eye(8) * labels[:, None, None] + rng.normal(size=(images, 8, 8))).astype(np.float32)
        metrics.update(scores, labels, maps, masks)
        classes[category] = metrics.result()
        for place, (label, score) in enumerate(zip(labels.tolist(), scores.tolist(), strict=True)):
            decisions.append(Decision(place, f"{category}/{place:03}.png", category, "blot", label, score))
    report = {
        "protocol": under,
        "config": {"system": system, "model": {"depth": 1}, "train": None if seed is None else {"seed": seed}},
        "environment": {"versions": {}, "device": "CPU", "seconds": 1.0, "images_per_second": None},
        "data": {"source": "folder:parts", "counts": {}, "licence": None, "bad_files": [], "sha256": {"test": pixels}},
        "mean": summarize(classes),
        "classes": classes,
    }
    report["config"] |= config or {}
    write_report(folder, report, evaluation=Evaluation(decisions=decisions))
    return folder
