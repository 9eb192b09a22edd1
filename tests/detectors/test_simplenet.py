import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.config import SimpleNetConfig, TrainConfig
from jaxad.detectors.simplenet import SimpleNet
from jaxad.errors import ConfigError
from jaxad.features import Encoder
from jaxad.nn import module_state
from jaxad.testing import BACKBONE, check_detector
from jaxad.types import Batch

CONFIG: dict[str, Any] = {"backbone": BACKBONE, "image_size": 56, "hidden": 24}
TRAINING: dict[str, Any] = {"learning_rate": 1e-2, "steps": 30, "batch_size": 4, "checkpoint_every": 30}


def detector(**changes):
    return SimpleNet.create(SimpleNetConfig(**CONFIG | changes), key=jax.random.key(0))


@pytest.fixture(scope="module")
def encoded(parts):
    return next(Encoder(detector(), batch_size=4).stream(parts.train))[0]


def judged(model, features):
    batch = Batch({}, np.zeros(4, np.uint32), np.ones(4, bool))
    return np.asarray(model.judge(features, batch, np.zeros(4)).maps)


def test_patches_are_averaged_with_their_neighbors_within_the_image(encoded):
    maps = encoded.tokens.reshape(4, 4, 4, 32)
    found = np.asarray(detector()._averaged(encoded)).reshape(maps.shape)
    np.testing.assert_allclose(found[:, 1, 2], maps[:, 0:3, 1:4].mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 3, 0], maps[:, 2:4, 0:2].mean((1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(detector(neighborhood=1)._averaged(encoded), encoded.tokens)


@pytest.mark.parametrize("standardize", ["channel", "none"])
def test_the_norm_has_the_statistics_of_training_patches_and_noise(encoded, standardize):
    model = detector(noise=0.5, standardize=standardize)
    model.prepare([dataclasses.replace(encoded, tokens=encoded.tokens[start : start + 2]) for start in (0, 2)])
    averaged = np.asarray(model._averaged(encoded)).reshape(-1, 32)
    scaled = averaged / averaged.std(0) if standardize == "channel" else averaged
    adapted = np.asarray(model.adaptor(scaled))
    noise = 0.5 * np.random.default_rng(0).normal(size=(2000, *adapted.shape))
    kernel = np.asarray(model.discriminator.hidden.kernel[...])
    mean, variance = model.expected()
    clean, noisy = adapted @ kernel, ((adapted + noise) @ kernel).reshape(-1, 24)
    np.testing.assert_allclose(mean, clean.mean(0), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(variance, (clean.var(0) + noisy.var(0)) / 2, rtol=0.02)


def test_loss_is_what_scores_lack_of_the_margin(encoded, monkeypatch):
    scores = jnp.concatenate([jnp.full((4, 16), 0.2), jnp.full((4, 16), 0.1)])
    model = detector()
    monkeypatch.setattr(type(model.discriminator), "score", lambda self, hidden, mean, variance: scores)
    total, terms = model.loss(encoded, jax.random.key(0))
    assert float(terms["normal"]) == pytest.approx(0.3)
    assert float(terms["anomalous"]) == pytest.approx(0.6)
    assert float(total) == pytest.approx(0.9)


def test_noise_is_of_training_alone_and_gradients_reach_all(encoded):
    model = detector()
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other
    np.testing.assert_array_equal(judged(model, encoded), judged(model, encoded))
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(encoded, jax.random.key(0))[0]

    gradients = jax.jit(jax.grad(loss))(trained)
    assert [path for path, g in gradients.items() if not np.abs(g).max() > 0] == []


def test_it_is_fitted_and_restored_and_finds_defects(parts, tmp_path):
    run = jaxad.fit(detector(noise=1.0), parts.train, TrainConfig(**TRAINING), workdir=tmp_path / "run")
    check_detector(run.model, parts.test)
    again = jaxad.restore(tmp_path / "run").detector
    mean = jaxad.evaluate(again, parts.test)["mean"]
    assert mean["image_auroc"] > 0.8


def test_what_cannot_work_is_listed():
    with pytest.raises(ConfigError, match="neighborhood = 2") as error:
        detector(neighborhood=2, noise=0.0, hidden=0, margin=-1.0)
    assert all(name in str(error.value) for name in ("noise", "hidden", "margin"))


def test_trainings_of_the_presets():
    paper, small = SimpleNetConfig.training("paper"), SimpleNetConfig.training("small", steps=5)
    assert (paper.batch_size, paper.learning_rate, paper.weight_decay) == (8, 2e-4, 1e-5)
    assert (small.steps, small.schedule) == (5, "cosine")
