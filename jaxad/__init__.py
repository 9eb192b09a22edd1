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
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Batch": "types",
    "Context": "types",
    "Features": "types",
    "Prediction": "types",
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
    "CLIPFusion": "systems.clipfusion",
    "DPDiff": "systems.dpdiff",
    "PatchBank": "systems.patch_bank",
    "VLMDiff": "systems.vlmdiff",
    "fit": "train",
    "Run": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "Predictor": "predict",
    "choose_threshold": "threshold",
    "Threshold": "threshold",
    "restore": "checkpoint",
    "write_report": "report",
}

__all__ = [*_HOMES, "data"]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from jaxad import data as data
    from jaxad.checkpoint import restore as restore
    from jaxad.config import CLIPFusionConfig as CLIPFusionConfig
    from jaxad.config import DataConfig as DataConfig
    from jaxad.config import DPDiffConfig as DPDiffConfig
    from jaxad.config import PatchBankConfig as PatchBankConfig
    from jaxad.config import TrainConfig as TrainConfig
    from jaxad.config import VLMDiffConfig as VLMDiffConfig
    from jaxad.detector import Detector as Detector
    from jaxad.errors import JaxadError as JaxadError
    from jaxad.evaluate import evaluate as evaluate
    from jaxad.predict import Predictor as Predictor
    from jaxad.predict import predict as predict
    from jaxad.report import write_report as write_report
    from jaxad.systems.clipfusion import CLIPFusion as CLIPFusion
    from jaxad.systems.dpdiff import DPDiff as DPDiff
    from jaxad.systems.patch_bank import PatchBank as PatchBank
    from jaxad.systems.vlmdiff import VLMDiff as VLMDiff
    from jaxad.threshold import Threshold as Threshold
    from jaxad.threshold import choose_threshold as choose_threshold
    from jaxad.train import Run as Run
    from jaxad.train import fit as fit
    from jaxad.types import Batch as Batch
    from jaxad.types import Context as Context
    from jaxad.types import Features as Features
    from jaxad.types import Prediction as Prediction
    from jaxad.types import Record as Record
    from jaxad.types import Source as Source
    from jaxad.types import View as View


def __getattr__(name: str) -> Any:
    if name == "data":
        return importlib.import_module("jaxad.data")
    if name not in _HOMES:
        raise AttributeError(f"module 'jaxad' has no attribute {name!r}")
    return getattr(importlib.import_module(f"jaxad.{_HOMES[name]}"), name)


class _Package(ModuleType):
    """Keeps `jaxad.evaluate` and `jaxad.predict` the functions, although modules of these names are imported too."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("evaluate", "predict") and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
