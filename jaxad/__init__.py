"""jaxad: visual anomaly detection in JAX.

ds = jaxad.data.load("folder:/my/parts")
model = jaxad.DPDiff.create(jaxad.DPDiffConfig.preset("small"), key=jax.random.key(0))
run = jaxad.fit(model, ds.train, jaxad.TrainConfig.preset("small"), workdir="runs/parts", holdout=ds.holdout)
report = jaxad.evaluate(run.model, ds.test)
predictions = jaxad.predict(run.model, ["part.png"], threshold=run.threshold)

Names are imported when they are first used, so that `import jaxad` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "Features": "types",
    "Judgement": "types",
    "Record": "types",
    "Source": "types",
    "View": "types",
    "CLIPFusionConfig": "config",
    "DataConfig": "config",
    "DPDiffConfig": "config",
    "PatchBankConfig": "config",
    "TrainConfig": "config",
    "VLMDiffConfig": "config",
    "JaxadError": "errors",
    "Detector": "detector",
    "InputSpec": "detector",
    "PatchDetector": "detector",
    "Remembers": "detector",
    "Trainable": "detector",
    "register": "detector",
    "CLIPFusion": "detectors.clipfusion.detector",
    "DPDiff": "detectors.dpdiff.detector",
    "PatchBank": "detectors.patch_bank",
    "VLMDiff": "detectors.vlmdiff.detector",
    "fit": "training.trainer",
    "Run": "training.trainer",
    "evaluate": "inference.evaluation",
    "predict": "inference.prediction",
    "Predictor": "inference.predictor",
    "choose_threshold": "inference.calibrate",
    "Threshold": "inference.threshold",
    "restore": "inference.checkpoint",
    "write_report": "report.page",
}

__all__ = [*_HOMES, "data"]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from jaxad import data as data
    from jaxad.config import CLIPFusionConfig as CLIPFusionConfig
    from jaxad.config import DataConfig as DataConfig
    from jaxad.config import DPDiffConfig as DPDiffConfig
    from jaxad.config import PatchBankConfig as PatchBankConfig
    from jaxad.config import TrainConfig as TrainConfig
    from jaxad.config import VLMDiffConfig as VLMDiffConfig
    from jaxad.detector import Detector as Detector
    from jaxad.detector import InputSpec as InputSpec
    from jaxad.detector import PatchDetector as PatchDetector
    from jaxad.detector import Remembers as Remembers
    from jaxad.detector import Trainable as Trainable
    from jaxad.detector import register as register
    from jaxad.detectors.clipfusion.detector import CLIPFusion as CLIPFusion
    from jaxad.detectors.dpdiff.detector import DPDiff as DPDiff
    from jaxad.detectors.patch_bank import PatchBank as PatchBank
    from jaxad.detectors.vlmdiff.detector import VLMDiff as VLMDiff
    from jaxad.errors import JaxadError as JaxadError
    from jaxad.inference.calibrate import choose_threshold as choose_threshold
    from jaxad.inference.checkpoint import restore as restore
    from jaxad.inference.evaluation import evaluate as evaluate
    from jaxad.inference.prediction import predict as predict
    from jaxad.inference.predictor import Predictor as Predictor
    from jaxad.inference.threshold import Threshold as Threshold
    from jaxad.report.page import write_report as write_report
    from jaxad.training.trainer import Run as Run
    from jaxad.training.trainer import fit as fit
    from jaxad.types import Batch as Batch
    from jaxad.types import Features as Features
    from jaxad.types import Judgement as Judgement
    from jaxad.types import Record as Record
    from jaxad.types import Source as Source
    from jaxad.types import View as View


def __getattr__(name: str) -> Any:
    if name == "data":
        return importlib.import_module("jaxad.data")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxad' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxad.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
