import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.diffusion.schedule import linear_schedule
from jaxad.diffusion.wiener import WienerFilter

TIMESTEPS = (0, 90, 999)


def fitted():
    """A filter of 5 channels, their mean and their covariance, of rank 4."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(4, 5)) * 2
    mean, covariance = rng.normal(size=5), mix.T @ mix
    wiener = WienerFilter(5)
    wiener.fit(mean, covariance)
    return wiener, mean, covariance


def test_its_guess_is_the_closed_form_at_every_level():
    wiener, mean, covariance = fitted()
    alpha_bar = linear_schedule().alpha_bar[list(TIMESTEPS)]
    x_t = np.random.default_rng(1).normal(size=(3, 7, 5)).astype(np.float32)
    found = wiener(x_t, jnp.asarray(alpha_bar, jnp.float32))
    for a, noisy, clean in zip(alpha_bar, x_t, found, strict=True):
        inverse = np.linalg.inv(a * covariance + (1 - a) * np.eye(5))
        expected = mean + (noisy - np.sqrt(a) * mean) @ (np.sqrt(a) * covariance @ inverse).T
        np.testing.assert_allclose(clean, expected, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("t", TIMESTEPS)
def test_noise_and_velocity_are_those_that_the_guess_implies(t):
    wiener, _, _ = fitted()
    a = linear_schedule().alpha_bar[t]
    x_t = np.random.default_rng(2).normal(size=(2, 4, 5)).astype(np.float32)
    clean, noise, velocity = (np.asarray(wiener(x_t, np.float32(a), target)) for target in ("x0", "epsilon", "v"))
    np.testing.assert_allclose(np.sqrt(a) * clean + np.sqrt(1 - a) * noise, x_t, atol=1e-3)
    np.testing.assert_allclose(velocity, np.sqrt(a) * noise - np.sqrt(1 - a) * clean, atol=1e-3)


def test_unfitted_it_takes_vectors_for_white_noise():
    x_t, a = np.ones((1, 2, 3), np.float32), np.float32(0.36)
    np.testing.assert_allclose(WienerFilter(3)(x_t, a), 0.6 * x_t, rtol=1e-6)
