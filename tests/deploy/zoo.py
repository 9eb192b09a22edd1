"""The smallest of every registered detector, fitted as far as judging needs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

import jaxad
from jaxad.testing import BACKBONE, toy_model
from tests.detectors import (
    test_dinomaly,
    test_hvq_trans,
    test_inp_former,
    test_rd4ad,
    test_simplenet,
    test_uniad,
    test_vitad,
)
from tests.detectors.clipfusion.made_checkpoints import fusion_config, write_clip, write_diffusion
from tests.models.stable_diffusion.made_checkpoints import write_pipeline

DEEP = {"backbone": "random:32x4", "image_size": 56}
FLAT = {"backbone": BACKBONE, "image_size": 56}
FAST = {"language_timesteps": (201,), "diffusion_taps": ((201, 1),), "states": ("crack", "hole")}


def zoo(name: str, source: Any, folder: Path) -> Any:
    """The detector of that name.

    Args:
        name: registered.
        source: images to remember.
        folder: for networks that are read from files.
    """
    match name:
        case "dpdiff":
            return toy_model()
        case "patch-bank":
            return jaxad.PatchBank.create(jaxad.PatchBankConfig(**FLAT, per_category=True)).remember(source)
        case "linear":
            return jaxad.LinearDenoiser.create(jaxad.LinearConfig(**FLAT)).remember(source)
        case "retrieval":
            config = jaxad.RetrievalConfig(**FLAT, memory=100, retrieved=20)
            return jaxad.RetrievalDetector.create(config).remember(source)
        case "padim":
            return jaxad.PaDiM.create(jaxad.PaDiMConfig(**FLAT, dimensions=8)).remember(source)
        case "dinomaly":
            return test_dinomaly.detector()
        case "uniad":
            return test_uniad.detector()
        case "simplenet":
            return test_simplenet.detector()
        case "rd4ad":
            return test_rd4ad.detector()
        case "vitad":
            return test_vitad.detector()
        case "inp-former":
            return test_inp_former.detector()
        case "hvq-trans":
            return test_hvq_trans.detector()
        case "vlmdiff":
            write_pipeline(folder / "sd")
            settings = {"stable_diffusion": str(folder / "sd"), "backbone": "random:32x2x8", "image_size": 32}
            config = jaxad.VLMDiffConfig(**settings, sampling_steps=2, remat=False)
            return jaxad.VLMDiff.create(config, key=jax.random.key(0))
        case "clipfusion":
            write_clip(folder / "clip")
            write_diffusion(folder / "diffusion", channels=4)
            return jaxad.CLIPFusion.create(fusion_config(folder, **FAST)).remember(source.per_class(2, seed=0))
        case "promptad":
            write_clip(folder / "clip")
            config = jaxad.PromptADConfig(clip=str(folder / "clip"), clip_blocks=(1, 2), output_size=20)
            training = jaxad.TrainConfig(steps=1, batch_size=2)
            model = jaxad.PromptAD.create(config, key=jax.random.key(0))
            return jaxad.fit(model, source.per_class(1, seed=0), training, workdir=folder / "run").model
    raise KeyError(name)
