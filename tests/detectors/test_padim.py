import math

import numpy as np

import jaxad
from jaxad.features import FeatureCache
from jaxad.types import Features
from tests.detectors import peers

detector = peers.PEERS["padim"].make


def test_each_place_has_a_gaussian_of_its_own(parts):
    rng = np.random.default_rng(0)
    center = 10 * rng.normal(size=(16, 32))
    tokens = (center + rng.normal(size=(len(parts.train), 16, 32))).astype(np.float32)
    model = detector().remember(parts.train, features=FeatureCache(Features(tokens, (4, 4)), ""))
    shifted = np.roll(center, 1, axis=0)
    at_home, elsewhere = peers.maps(model, np.stack([center, shifted]).astype(np.float32))
    assert at_home.max() < 0.1 * elsewhere.min()


def test_distances_count_deviations_not_units(parts):
    """Along a direction of large variance a step weighs less, whichever channels it mixes."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    spread = np.geomspace(0.5, 50, 32)
    tokens = (rng.normal(size=(14 * 40, 16, 32)) * spread @ rotation).astype(np.float32)
    source = parts.train.select([0] * len(tokens))
    model = detector(dimensions=32).remember(source, features=FeatureCache(Features(tokens, (4, 4)), ""))
    steps = np.zeros((32, 16, 32), np.float32)
    steps[:, 0] = 3 * spread[:, None] * rotation
    assert np.abs(peers.maps(model, steps)[:, 0, 0] - 3).max() < 0.5


def test_channels_are_drawn_once_by_the_seed():
    one, same, other = (np.asarray(detector(seed=seed).chosen[...]) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert len(set(one)) == 8
    assert set(one) != set(other)
    assert len(detector(dimensions=500).chosen[...]) == 32


def test_two_images_are_enough_and_one_is(parts):
    for count in (1, 2):
        model = detector().remember(parts.train.select(range(count)))
        found = jaxad.predict(model, parts.test.records[0].file)[0].score
        assert math.isfinite(found)
        assert found > 0
