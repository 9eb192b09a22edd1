"""Both stages of VLMDiff on real photos: bottles of MVTec-AD at 112 px, small fresh networks, minutes on two cores."""

from __future__ import annotations

import csv
import dataclasses

import jax
import numpy as np
import pytest

import jaxad
from jaxad.autoencoder_training import fit_autoencoder
from jaxad.config import FirstStageConfig, FirstStageTrainConfig, VLMDiffConfig
from jaxad.features import Encoder
from jaxad.models.autoencoder_kl import save_autoencoder
from jaxad.systems.vlmdiff_networks import load_networks

pytestmark = [pytest.mark.real, pytest.mark.slow]


def test_autoencoder_and_diffusion_learn_bottles(real_data, tmp_path):
    data = jaxad.DataConfig(categories=("bottle",), holdout=0.0)
    bottles = jaxad.data.load(f"folder:{real_data / 'parts'}", config=data)
    train = bottles.train.per_class(64, seed=0)
    test = bottles.test.select([i for i in range(len(bottles.test)) if i % 4 == 0])
    dinov2 = str(real_data / "weights" / "dinov2-small")
    small = {"backbone": dinov2, "captions": "never", "start_timestep": 400, "sampling_steps": 4}

    narrow = VLMDiffConfig.preset("small", stable_diffusion="random:8", **small)
    save_autoencoder(load_networks(narrow, "float32").autoencoder, tmp_path / "start")
    first = fit_autoencoder(
        train,
        FirstStageConfig(source=str(tmp_path / "start"), image_size=112, perceptual_weight=0.0),
        FirstStageTrainConfig(steps=120, batch_size=4, accumulate=1, learning_rate=2e-3),
        workdir=tmp_path / "first",
    )
    assert first.errors[1] < first.errors[0] / 5

    # The UNet takes latents of unit deviation; those of an autoencoder from scratch have another than KL-f8's.
    folder = str(first.folder)
    config = VLMDiffConfig.preset("small", stable_diffusion="random:16", autoencoder=folder, **small)
    model = jaxad.VLMDiff.create(config, key=jax.random.key(0))
    features = next(Encoder(model).stream(train))[0].tokens
    scale = 1 / float(np.std(features[..., : features.shape[-1] // 2]))
    first.autoencoder.config = dataclasses.replace(first.autoencoder.config, scaling_factor=scale)
    save_autoencoder(first.autoencoder, folder)
    model = jaxad.VLMDiff.create(config, key=jax.random.key(0))
    training = VLMDiffConfig.training("small", steps=500, batch_size=4, log_every=20)
    run = jaxad.fit(model, train, training, workdir=tmp_path / "run")
    with (run.workdir / "metrics.csv").open(newline="") as stream:
        losses = [float(row["loss"]) for row in csv.DictReader(stream)]
    assert np.mean(losses[-5:]) < 0.3 * losses[0]

    untrained, trained = (jaxad.evaluate(m, test, protocol="diad")["mean"] for m in (model, run.model))
    print(first.errors, scale, losses[0], losses[-5:], untrained["pixel_auroc"], trained["pixel_auroc"])
    assert trained["pixel_auroc"] > max(0.6, untrained["pixel_auroc"])
