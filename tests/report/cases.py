"""A report of three categories, complete, without masks and without defects, and what its page shows besides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxad.inference.decisions import Decision, counted, decide, mistakes
from jaxad.inference.results import (
    Case,
    Curves,
    Evaluation,
    MethodFigure,
    PrototypeFigure,
    Shown,
    TsneInput,
    choose_cases,
)
from jaxad.inference.sheet import Sheet
from jaxad.inference.threshold import Limits, Threshold
from jaxad.types import Record

IMAGE = {"image_auroc": 0.95, "image_ap": 0.97, "image_f1max": 0.9}
PIXEL = {"pixel_auroc": 0.96, "pixel_ap": 0.5, "pixel_f1max": 0.52, "aupro": 0.88, "mad": 0.8}
CATEGORIES = ("bottle", "grid", "tile")
RULE = Threshold(0.01, "exact-256", {name: Limits(1.5, 0.9, 0.1, 5 if name else 15) for name in ("", *CATEGORIES)})
WORDS = ("input", "reconstruction", "features before", "features after", "residual")
NO_PIXEL = dict.fromkeys(("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "mad"))


def make_classes() -> dict[str, Any]:
    """Three categories: complete, without masks, without defects."""
    nothing = dict.fromkeys(IMAGE) | NO_PIXEL
    return {
        "bottle": {**IMAGE, **PIXEL, "n_normal": 20, "n_anomalous": 30, "undefined": {}},
        "grid": {
            **IMAGE,
            **NO_PIXEL,
            "image_auroc": 0.81,
            "n_normal": 12,
            "n_anomalous": 15,
            "undefined": dict.fromkeys(NO_PIXEL, "no masks"),
        },
        "tile": {
            **nothing,
            "n_normal": 10,
            "n_anomalous": 0,
            "undefined": dict.fromkeys(nothing, "no anomalous images"),
        },
    }


def make_report() -> dict[str, Any]:
    decisions = counted(make_evaluation().decisions, RULE)
    baseline = {
        "decisions": decisions,
        "mean": {**IMAGE, **PIXEL, "image_auroc": 0.9, "pixel_ap": 0.6},
        "classes": make_classes(),
    }
    baseline["classes"]["bottle"]["image_auroc"] = 0.9
    return {
        "protocol": "exact-256",
        "protocol_description": "Maps at 256 px, Gaussian sigma 4.",
        "config": {"system": "DPDiff-AD", "model": {"depth": 2, "blocks": [4, 5], "width": None}},
        "environment": {
            "versions": {"jax": "0.10.2"},
            "device": "2 CPU cores",
            "seconds": 12.5,
            "images_per_second": 23.4,
            "timed": "features, reconstruction and maps",
            "timings": {"training": 281.0},
        },
        "data": {
            "source": "folder:parts",
            "counts": {"bottle": {"train": 100, "normal": 20, "anomalous": 30}},
            "licence": "CC BY-NC-SA 4.0",
            "bad_files": [{"file": "grid/7.png", "kind": "truncated image", "detail": "save it again"}],
            "notes": ["The defects of bottle are drawn, those of grid are real."],
        },
        "mean": {**IMAGE, **PIXEL},
        "classes": make_classes(),
        "decisions": decisions,
        "notes": ["DPDiff-AD has random weights."],
        "baseline": {"notes": ["The bank has <i>random</i> weights."], "config": {"system": "Patch bank"}, **baseline},
    }


def make_decisions(scores: dict[str, Any], *, threshold: Threshold | None = RULE) -> list[Decision]:
    """Decisions about images of these (scores, labels) by category; defects are cuts and blots by turns."""
    draw, decided = np.random.default_rng(1), []
    for name, (values, labels) in scores.items():
        for i, (value, label) in enumerate(zip(values, labels, strict=True)):
            defect = ("cut", "blot")[i % 2] if label else "good"
            record = Record(Path(f"{i}.png"), name, int(label), defect, None, f"{name}/{i}.png")
            mask = np.eye(16) > 0 if label else None
            map = draw.random((16, 16))
            decided.append(decide(len(decided), record, int(label), float(value), map, mask, (60, 80), threshold))
    return decided


def make_evaluation(categories: tuple[str, ...] = CATEGORIES) -> Evaluation:
    draw = np.random.default_rng(0)
    line, curves, scores, cases = np.linspace(0, 1, 500), {}, {}, []
    for name in categories:
        defects = 0 if name == "tile" else 12
        labels = np.repeat([0, 1], [10, defects])
        scores[name] = draw.normal(size=labels.size) + 3 * labels, labels
        if defects:
            pixel = (line, np.sqrt(line)) if name == "bottle" else None
            curves[name] = Curves(image_roc=(line, np.sqrt(line)), image_pr=(line, 1 - line / 2), pixel_roc=pixel)
    decisions = make_decisions(scores)
    decided = {decision.file: decision for decision in decisions}
    for name in categories:
        for rank, i in choose_cases(*scores[name]).items():
            decision = decided[f"{name}/{i}.png"]
            image, map = draw.integers(0, 256, (60, 80, 3), np.uint8), draw.random((16, 16))
            cases.append(Case(decision, image, map, rank, np.eye(60) if name == "bottle" and decision.label else None))
    maps = draw.random((3, 8, 8))
    features = draw.normal(size=(120, 16)).astype(np.float32)
    shown = Shown(cases[0].image, np.tri(16), np.eye(16))
    return Evaluation(
        curves=curves,
        baseline_curves=curves,
        scores=scores,
        thresholds=dict.fromkeys(categories, 1.5),
        threshold_note="Set on held-out normal images.",
        pixel_thresholds=dict.fromkeys(categories, 0.9),
        cases=cases,
        prototypes=[PrototypeFigure(decisions[-1], cases[0].image, maps, ["local 1", "local 2", "global 1"])],
        methods=[MethodFigure(decisions[-1], dict.fromkeys(WORDS, cases[0].image))],
        sheet=Sheet(("image", "defect", "DPDiff-AD", "Patch bank"), ("bottle/10.png",), ((cases[0].image,) * 4,)),
        decisions=decisions,
        baseline_decisions=decisions,
        pictures={decision.index: shown for wrong in mistakes(decisions).values() for decision in wrong},
        warnings=["too few hold-out images"],
        tsne=TsneInput(features, features * 0.9, np.arange(120) % 6 == 0, ["bottle"] * 60 + ["grid"] * 60),
    )
