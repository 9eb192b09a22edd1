"""Trains, or remembers, and predicts in a process of its own: `python -m tests.worker SETTINGS.json`.

Settings: `data` folder, `workdir`, `model` and `train` configs, or `train` null for PatchCLIP with three references of
each category, and `out`, the file for scores, maps, parameters and the number of images that the first process decoded.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tests.conftest  # noqa: F401  the settings of every test


def main(settings: dict) -> None:
    from jaxad import parallel

    parallel.start_processes()

    import jax
    import numpy as np

    import jaxad
    from jaxad.config import CLIPFusionConfig
    from jaxad.data import ImageSource
    from jaxad.inference.predictor import Predictor
    from jaxad.nn import module_state

    ds = jaxad.data.load(f"folder:{settings['data']}")
    decoded, decode = [], ImageSource.__getitem__
    ImageSource.__getitem__ = lambda source, index: decoded.append(index) or decode(source, index)
    if settings["train"] is None:
        model = jaxad.CLIPFusion.create(CLIPFusionConfig.preset("patchclip", **settings["model"]))
        source, config = ds.train.per_class(3), None
    else:
        model = jaxad.DPDiff.create(jaxad.DPDiffConfig(**settings["model"]), key=jax.random.key(0))
        source, config = ds.train, jaxad.TrainConfig(**settings["train"])
    run = jaxad.fit(model, source, config, workdir=settings["workdir"], holdout=ds.holdout)
    outputs = list(Predictor(run.model, batch_size=8).stream(ds.test))
    arrays = module_state.split(run.model)[1]
    shards = {path: array.addressable_shards[0].data.shape for path, array in arrays.items()}
    results = {f"array/{path}": array for path, array in parallel.to_host(arrays).items()}
    results["scores"] = np.concatenate([output.scores for output in outputs])
    results["maps"] = np.concatenate([output.maps for output in outputs])
    results["limits"] = np.array([run.threshold.limits[""].image, run.threshold.limits[""].pixel])
    if parallel.is_main_process():
        numbers = {"devices": jax.device_count(), "decoded": len(decoded)}
        np.savez(settings["out"], **numbers, shards=json.dumps(shards), **results)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
