import jax
import numpy as np
import pytest

import jaxad
from jaxad.features import FeatureCache
from jaxad.testing import check_detector
from jaxad.types import Features
from tests.detectors import peers

detector = peers.PEERS["linear"].make


RANK = 5


def tokens(images, seed=0):
    """Patches of a low-dimensional kind, [b n c] with large means and unequal scales."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(9)
    mix = fixed.normal(size=(RANK, 32)) * fixed.uniform(0.1, 20, 32)
    return (rng.normal(size=(images, 16, RANK)) @ mix + fixed.normal(size=32) * 50).astype(np.float32)


@pytest.fixture(scope="module")
def parts_like(parts):
    return FeatureCache(Features(tokens(len(parts.train)), (4, 4)), "")


def test_the_residual_is_kept_in_directions_that_normal_patches_do_not_take(parts, parts_like):
    model = detector().remember(parts.train, features=parts_like)
    x = tokens(3, seed=1)
    strange = x.copy()
    direction = np.random.default_rng(3).normal(size=32) * np.asarray(model.channel_std[...])
    strange[1, 6] += direction
    normal, found = peers.maps(model, x), peers.maps(model, strange)
    assert np.argmax(found[1]) == 6
    assert found[1].max() > 10 * normal.max()
    np.testing.assert_array_equal(found[[0, 2]], normal[[0, 2]])


def test_draws_tend_to_the_expected_reconstruction(parts, parts_like):
    x = tokens(2, seed=1)
    models = {
        name: detector(**changes).remember(parts.train, features=parts_like)
        for name, changes in {
            "expected": {},
            "one": {"noise": "drawn"},
            "many": {"noise": "drawn", "draws": 400},
        }.items()
    }
    standard = (x - np.asarray(models["one"].channel_mean[...])) / np.asarray(models["one"].channel_std[...])
    keys = jax.random.split(jax.random.key(0), 2)
    found = {name: np.asarray(model.reconstruct(standard, keys)) for name, model in models.items()}
    far = {name: np.sqrt(np.square(found[name] - found["expected"]).mean()) for name in ("one", "many")}
    assert far["many"] == pytest.approx(far["one"] / 20, rel=0.2)
    assert far["one"] > 0.01


@pytest.mark.parametrize("changes", [{}, {"residual": "cosine"}, {"noise": "drawn", "draws": 2}])
def test_it_keeps_to_the_interface_and_finds_defects(parts, changes):
    model = detector(**changes).remember(parts.train)
    check_detector(model, parts.test)
    assert jaxad.evaluate(model, parts.test)["mean"]["image_auroc"] > 0.9
