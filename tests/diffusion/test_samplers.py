"""DDIM and DDPM against their formulas, and the timesteps that they visit."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.diffusion.samplers import ddim, ddim_timesteps, ddpm, ldm_timesteps, normal_per_image
from jaxad.diffusion.schedule import Schedule, add_noise, linear_schedule

SCHEDULE = linear_schedule()


def oracle(x0):
    """The exact noise in x_t, whatever noise that is."""

    def denoise(x, t):
        alpha_bar = jnp.asarray(SCHEDULE.alpha_bar, jnp.float32)[t]
        return (x - jnp.sqrt(alpha_bar) * x0) / jnp.sqrt(1 - alpha_bar)

    return denoise


def test_timesteps_are_evenly_spaced():
    assert ddim_timesteps(250, 3) == (250, 167, 83)
    assert ddim_timesteps(400, 1) == (400,)


@given(st.integers(1, 999).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, start))))
def test_timesteps_fall_strictly_and_stay_above_zero(pair):
    start, steps = pair
    timesteps = ddim_timesteps(start, steps)
    assert len(timesteps) == steps
    assert timesteps[0] == start
    assert timesteps[-1] > 0
    assert all(a > b for a, b in pairwise(timesteps))


def test_timesteps_of_latent_diffusion():
    assert ldm_timesteps(499, 5) == (401, 301, 201, 101, 1)
    assert ldm_timesteps(999, 30)[:3] == (967, 934, 901)
    assert ldm_timesteps(10, 4) == (9, 6, 3, 1)


@given(st.integers(1, 999).flatmap(lambda start: st.tuples(st.just(start), st.integers(1, start))))
def test_timesteps_of_latent_diffusion_leave_no_gap_beyond_a_stride(pair):
    start, steps = pair
    timesteps = ldm_timesteps(start, steps)
    assert len(timesteps) == steps
    assert timesteps[-1] == 1
    assert timesteps[0] <= start
    strides = [a - b for a, b in pairwise((start + 1, *timesteps))]
    assert min(strides) >= 1
    assert max(strides[1:], default=strides[0]) - min(strides[1:], default=strides[0]) <= 1
    assert strides[0] <= (start + 1) / steps


@settings(max_examples=8, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=6, unique=True), st.integers(0, 2**31))
def test_ddim_with_a_perfect_oracle_returns_the_clean_image(timesteps, seed):
    timesteps = sorted(timesteps, reverse=True)
    x0, noise = np.random.default_rng(seed).normal(size=(2, 2, 3, 4)).astype(np.float32)
    x = add_noise(x0, noise, np.float32(SCHEDULE.alpha_bar[timesteps[0]]))
    result = ddim(oracle(x0), x, SCHEDULE, timesteps)
    # One float32 rounding of x_t grows by 1 / sqrt(alpha_bar).
    tolerance = 1e-6 * 10 / np.sqrt(SCHEDULE.alpha_bar[timesteps[0]])
    np.testing.assert_allclose(result, x0, atol=tolerance)


def test_ddim_to_a_noisy_target_keeps_the_very_noise_it_started_from():
    x0, noise = np.random.default_rng(3).normal(size=(2, 2, 3, 4)).astype(np.float32)
    x = add_noise(x0, noise, np.float32(SCHEDULE.alpha_bar[400]))
    last = float(SCHEDULE.alpha_bar[0])
    result = ddim(oracle(x0), x, SCHEDULE, (400, 150, 30), last=last)
    np.testing.assert_allclose(result, np.sqrt(last) * x0 + np.sqrt(1 - last) * noise, atol=2e-5)


def test_ddim_update_of_an_imperfect_denoiser_is_the_published_formula():
    def denoise(x, t):
        return 0.3 * x + 0.01 * t.astype(jnp.float32)

    x = np.random.default_rng(4).normal(size=(2, 5)).astype(np.float32)
    expected, timesteps = x.astype(np.float64), (250, 167, 83)
    for now, then in zip(timesteps, (*timesteps[1:], None), strict=True):
        a, b = SCHEDULE.alpha_bar[now], 1.0 if then is None else SCHEDULE.alpha_bar[then]
        noise = 0.3 * expected + 0.01 * now
        expected = np.sqrt(b) * (expected - np.sqrt(1 - a) * noise) / np.sqrt(a) + np.sqrt(1 - b) * noise
    np.testing.assert_allclose(ddim(denoise, x, SCHEDULE, timesteps), expected, rtol=1e-5, atol=1e-5)


def test_ddpm_follows_algorithm_2():
    def denoise(x, t):
        return 0.5 * x - 0.1

    keys = jax.random.split(jax.random.key(0), 3)
    x = np.random.default_rng(5).normal(size=(3, 4, 2)).astype(np.float32)
    expected = x.astype(np.float64)
    for t in (4, 3, 2, 1, 0):
        beta, now = SCHEDULE.beta[t], SCHEDULE.alpha_bar[t]
        before = SCHEDULE.alpha_bar[t - 1] if t else 1.0
        mean = (expected - beta / np.sqrt(1 - now) * (0.5 * expected - 0.1)) / np.sqrt(1 - beta)
        draws = [jax.random.normal(jax.random.fold_in(key, t), (4, 2)) for key in keys]
        expected = mean + np.sqrt(beta * (1 - before) / (1 - now)) * np.stack(draws)
    np.testing.assert_allclose(ddpm(denoise, x, SCHEDULE, 4, keys), expected, rtol=1e-4, atol=1e-5)


def test_ddpm_adds_no_noise_at_the_last_step():
    x0 = np.ones((2, 3), np.float32)
    x = add_noise(x0, np.full((2, 3), 0.7, np.float32), np.float32(SCHEDULE.alpha_bar[0]))
    keys = jax.random.split(jax.random.key(1), 2)
    np.testing.assert_allclose(ddpm(oracle(x0), x, SCHEDULE, 0, keys), x0, atol=1e-5)


def test_ddpm_with_a_perfect_oracle_ends_at_the_clean_image():
    x0, noise = np.random.default_rng(6).normal(size=(2, 2, 4, 3)).astype(np.float32)
    x = add_noise(x0, noise, np.float32(SCHEDULE.alpha_bar[60]))
    result = ddpm(oracle(x0), x, SCHEDULE, 60, jax.random.split(jax.random.key(2), 2))
    np.testing.assert_allclose(result, x0, atol=1e-4)


def test_ddpm_noise_has_the_posterior_variance():
    beta = np.array([0.1, 0.3])
    schedule = Schedule(beta, np.cumprod(1 - beta))
    keys = jax.random.split(jax.random.key(3), 20_000)

    def denoise(x, t):
        return jnp.where(t == 1, 0.0, x / np.sqrt(0.1).astype(np.float32))

    # The last step is linear, (x - sqrt(0.1) x / sqrt(0.1)) / sqrt(0.9) = 0, so look at the first alone.
    first = ddpm(lambda x, t: jnp.zeros_like(x), jnp.zeros((20_000, 1)), schedule, 1, keys) * np.sqrt(0.9)
    assert float(first.std()) == pytest.approx(np.sqrt(0.3 * 0.1 / (1 - 0.9 * 0.7)), rel=0.03)
    assert float(jnp.abs(ddpm(denoise, jnp.zeros((20_000, 1)), schedule, 1, keys)).max()) < 1e-6


def test_noise_of_an_image_does_not_depend_on_its_batch():
    keys = jax.random.split(jax.random.key(4), 5)
    noise = normal_per_image(keys, (3, 2))
    assert noise.shape == (5, 3, 2)
    np.testing.assert_array_equal(normal_per_image(keys[3:4], (3, 2))[0], noise[3])
    np.testing.assert_array_equal(normal_per_image(keys[::-1], (3, 2)), noise[::-1])
    assert len(np.unique(noise)) == noise.size


def test_wrong_keys_are_named():
    x = np.zeros((3, 2), np.float32)
    with pytest.raises(AssertionError, match=r"keys must be \[b\]"):
        ddpm(oracle(x), x, SCHEDULE, 1, jax.random.split(jax.random.key(0), 2))
    with pytest.raises(AssertionError, match=r"keys must be \[b\]"):
        normal_per_image(jax.random.key(0), (2,))
