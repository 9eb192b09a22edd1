"""Noise schedules, the forward process, and the two targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.diffusion.schedule import add_noise, epsilon_from_velocity, linear_schedule, velocity

TABLE = {50: 0.970, 100: 0.895, 150: 0.786, 200: 0.656, 250: 0.521, 300: 0.394}
TABLE |= {350: 0.283, 400: 0.194, 500: 0.078, 600: 0.026, 700: 0.007}


def test_linear_schedule_has_the_known_signal_at_each_timestep():
    schedule = linear_schedule()
    assert len(schedule) == 1000
    assert schedule.beta[[0, -1]] == pytest.approx([1e-4, 0.02])
    for t, alpha_bar in TABLE.items():
        assert schedule.alpha_bar[t] == pytest.approx(alpha_bar, abs=5e-4), t


def test_alpha_bar_is_the_running_product():
    schedule = linear_schedule(20, 0.01, 0.3)
    product = 1.0
    for t in range(20):
        product *= 1 - (0.01 + (0.3 - 0.01) * t / 19)
        assert float(schedule.alpha_bar_at(jnp.asarray(t))) == pytest.approx(product, rel=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 4, 5)])
def test_noise_of_an_image_has_its_own_level_whatever_the_shape(shape):
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, *shape)).astype(np.float32)
    alpha_bar = np.array([0.9, 0.5, 0.0], np.float32)
    noisy = np.asarray(add_noise(x, noise, alpha_bar))
    for i, level in enumerate(alpha_bar):
        np.testing.assert_allclose(noisy[i], np.sqrt(level) * x[i] + np.sqrt(1 - level) * noise[i], rtol=1e-6)
    np.testing.assert_allclose(add_noise(x, noise, 0.25), 0.5 * x + np.sqrt(0.75) * noise, rtol=1e-5, atol=1e-6)


def test_velocity_and_noise_are_two_names_of_one_thing():
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=(2, 6, 4, 5)).astype(np.float32)
    alpha_bar = linear_schedule().alpha_bar_at(jnp.array([0, 10, 250, 500, 900, 999]))
    x_t = add_noise(x, noise, alpha_bar)
    np.testing.assert_allclose(epsilon_from_velocity(velocity(x, noise, alpha_bar), x_t, alpha_bar), noise, atol=1e-5)


def test_alpha_bar_at_works_on_traced_timesteps():
    schedule = linear_schedule()
    t = jnp.array([[0, 250], [500, 999]])
    np.testing.assert_allclose(jax.jit(schedule.alpha_bar_at)(t), schedule.alpha_bar[np.asarray(t)], rtol=1e-6)


def test_wrong_shapes_are_named():
    x, level = np.zeros((2, 3)), np.zeros(2)
    with pytest.raises(AssertionError, match="x and noise must have the same shape"):
        add_noise(x, x[:1], level)
    with pytest.raises(AssertionError, match=r"alpha_bar must be \[b\] or a scalar"):
        add_noise(x, x, np.zeros(3))
    with pytest.raises(AssertionError, match="v and x_t must have the same shape"):
        epsilon_from_velocity(x[:1], x, level)
    with pytest.raises(AssertionError, match="t must hold integers"):
        linear_schedule().alpha_bar_at(level)
