import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors import peers

detector = peers.PEERS["simplenet"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


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


def test_noise_is_of_training_alone(encoded):
    model = detector()
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other
    np.testing.assert_array_equal(peers.judged(model, encoded).maps, peers.judged(model, encoded).maps)
