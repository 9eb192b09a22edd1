"""Both stages of VLMDiff on real photos: bottles of MVTec-AD at 112 px, small fresh networks, minutes on two cores."""

from __future__ import annotations

import csv

import jax
import numpy as np
import pytest

import jaxad
from jaxad.config import FirstStageConfig, FirstStageTrainConfig, VLMDiffConfig
from jaxad.training.autoencoder.trainer import fit_autoencoder

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_autoencoder_and_diffusion_learn_bottles(real_data, tmp_path):
    data = jaxad.DataConfig(categories=("bottle",), holdout=0.0)
    bottles = jaxad.data.load(f"folder:{real_data / 'parts'}", config=data)
    train = bottles.train.per_class(64, seed=0)
    test = bottles.test.select([i for i in range(len(bottles.test)) if i % 4 == 0])
    dinov2 = str(real_data / "weights" / "dinov2-small")
    small = {"backbone": dinov2, "captions": "never", "start_timestep": 400, "sampling_steps": 4}

    first = fit_autoencoder(
        train,
        FirstStageConfig(source="random:8", image_size=112, perceptual_weight=0.0),
        FirstStageTrainConfig(steps=120, batch_size=4, accumulate=1, learning_rate=2e-3),
        workdir=tmp_path / "first",
    )
    assert first.errors[1] < first.errors[0] / 5

    config = VLMDiffConfig.preset("small", stable_diffusion="random:16", autoencoder=str(first.folder), **small)
    model = jaxad.VLMDiff.create(config, key=jax.random.key(0))
    scale = model.autoencoder.config.scaling_factor
    assert scale == first.autoencoder.config.scaling_factor != 0.18215
    training = VLMDiffConfig.training("small", steps=500, batch_size=4, log_every=20)
    run = jaxad.fit(model, train, training, workdir=tmp_path / "run")
    with (run.workdir / "metrics.csv").open(newline="") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert np.mean(losses[-5:]) < 0.3 * losses[0]

    untrained, trained = (jaxad.evaluate(m, test, protocol="diad")["mean"] for m in (model, run.model))
    print(first.errors, scale, losses[0], losses[-5:], untrained["pixel_auroc"], trained["pixel_auroc"])
    assert trained["pixel_auroc"] > max(0.6, untrained["pixel_auroc"])
