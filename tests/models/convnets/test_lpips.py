"""LPIPS without torch; tests/parity/test_autoencoder_losses.py compares it with torchvision's VGG16."""

import jax
import numpy as np
import pytest

from jaxad.models.convnets.lpips import _unit, abstract_lpips
from jaxad.models.convnets.vgg import _halved
from jaxad.nn import module_state
from tests.models.stable_diffusion.made_checkpoints import randomized


@pytest.fixture(scope="module")
def distance():
    graphdef, arrays = module_state.split(randomized(abstract_lpips((2, 2, 3, 3, 4))))
    return jax.jit(lambda first, second: module_state.merge(graphdef, arrays)(first, second))


def test_distance_of_images(distance):
    first, second = np.random.default_rng(0).normal(0, 1, (2, 3, 16, 16, 3)).astype(np.float32)
    second[1] = first[1]
    found = distance(first, second)
    assert found.shape == (3,)
    assert float(found[1]) == 0
    assert all(float(found[row]) != 0 for row in (0, 2))
    np.testing.assert_allclose(distance(second, first), found, rtol=1e-5)


def test_features_of_length_zero_have_a_finite_slope():
    """Where VGG16 sees nothing, the length of its features has no slope of its own."""
    zeros = np.zeros((1, 1, 1, 4), np.float32)
    assert np.isfinite(jax.grad(lambda x: _unit(x).sum())(zeros)).all()
    np.testing.assert_allclose(np.square(_unit(zeros + 3)).sum(-1), 1, rtol=1e-6)


def test_maximum_drops_an_odd_row():
    found = _halved(np.arange(15, dtype=np.float32).reshape(1, 5, 3, 1))
    np.testing.assert_array_equal(found[0, :, :, 0], [[4], [10]])
