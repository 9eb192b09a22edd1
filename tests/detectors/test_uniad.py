import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.detectors.uniad import UniAD, seen_by
from jaxad.errors import ConfigError
from jaxad.nn.dropout import Dropout
from tests.detectors import peers

detector = peers.PEERS["uniad"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


def test_a_token_sees_all_but_its_neighborhood():
    seen = seen_by((4, 5), 3).reshape(4, 5, 4, 5)
    expected = np.ones((4, 5), bool)
    expected[0:3, 1:4] = False
    np.testing.assert_array_equal(seen[1, 2], expected)
    assert seen_by((4, 5), 0).all()
    np.testing.assert_array_equal(seen_by((4, 5), 1), ~np.eye(20, dtype=bool))
    with pytest.raises(ConfigError, match="neighborhood = 7"):
        detector(neighborhood=7)


def test_a_token_is_restored_without_its_own_neighborhood(encoded):
    """With one layer of each kind and the encoder's own path cut, nothing of a token reaches its reconstruction."""
    model = detector()
    x = np.asarray(model._standardize(encoded.tokens))
    positions, drop = model._positions(), Dropout(0.0, None)
    seen = seen_by(model.grid, 3)
    queries = jnp.broadcast_to(model.queries[0][...][None], (4, 16, 16))

    def attended(x):
        memory = model.project_in(x)
        return np.asarray(model.decoder[0].attentions[0](queries, memory + positions, memory, drop, seen))

    changed = x.copy()
    changed[:, 5] += 1
    moved = np.abs(attended(changed) - attended(x)).max((0, 2)) > 1e-6
    np.testing.assert_array_equal(moved, seen[:, 5])


def test_the_neighborhood_reaches_the_reconstruction(encoded):
    """With all of it hidden but far corners, what is restored differs."""
    with_all, without = (detector(neighborhood=size) for size in (0, 3))
    x = np.asarray(with_all._standardize(encoded.tokens))
    assert np.abs(np.asarray(with_all.restore(x)) - np.asarray(without.restore(x))).max() > 1e-4


def test_prepare_scales_channels_unless_told_otherwise(encoded):
    model, plain = detector(), detector(standardize="none")
    for each in (model, plain):
        each.prepare([encoded, encoded])
    x = np.asarray(model._standardize(encoded.tokens)).reshape(-1, 32)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-2)
    np.testing.assert_array_equal(plain._standardize(encoded.tokens), encoded.tokens)


def test_jitter_is_as_long_as_the_token_and_is_not_to_be_restored(encoded, monkeypatch):
    given = []

    def restore(self, x, key=None):
        given.append(x)
        return jnp.zeros_like(x)

    monkeypatch.setattr(UniAD, "restore", restore)
    model = detector(jitter=5.0)
    features = dataclasses.replace(encoded, tokens=np.random.default_rng(0).normal(size=(4, 16, 32)).astype(np.float32))
    features.tokens[0] *= 10
    value, _ = model.loss(features, jax.random.key(0))
    assert float(value) == pytest.approx(float(np.square(features.tokens).mean()), rel=1e-5)
    noise = np.asarray(given[0]) - features.tokens
    length = np.linalg.norm(features.tokens, axis=-1) / 32
    np.testing.assert_allclose(noise.std((1, 2)) / (5 * np.sqrt(np.square(length).mean(1))), 1, rtol=0.1)


def test_dropout_is_of_training_alone(encoded):
    model = detector(dropout=0.5, jitter=0.0)
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other


def test_the_map_is_the_length_of_the_difference(encoded):
    model = detector()
    x = np.asarray(model._standardize(encoded.tokens))
    found = np.asarray(peers.judged(model, encoded).maps).reshape(4, 16)
    np.testing.assert_allclose(found, np.linalg.norm(x - np.asarray(model.restore(x)), axis=-1), rtol=1e-5)
