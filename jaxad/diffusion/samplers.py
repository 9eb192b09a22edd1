"""Reverse processes: few-step DDIM and ancestral DDPM, each one `lax.scan` with a static number of steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.diffusion.schedule import Schedule
from jaxad.nn.noise import normal
from jaxad.types import Array

Denoiser = Callable[[jax.Array, jax.Array], jax.Array]
"""(x_t [b ...], t scalar int32) -> predicted noise, of the shape of x_t."""


def ddim_timesteps(start: int, steps: int) -> tuple[int, ...]:
    """`steps` evenly spaced timesteps from `start` down, 0 excluded: (250, 3) -> (250, 167, 83).

    DPDiff-AD says that it takes three steps, not which; those of equal length waste none.

    Args:
        start: first timestep, at least `steps`.
        steps: number of network evaluations, at least 1.
    """
    return tuple(round(start * (steps - i) / steps) for i in range(steps))


def ldm_timesteps(start: int, steps: int) -> tuple[int, ...]:
    """`steps` evenly spaced timesteps down to 1, the first a stride below the noise: (999, 10) -> (901, ..., 101, 1).

    Where `steps` divides 1000 these are the "uniform" timesteps of latent diffusion (arXiv 2112.10752). Elsewhere its
    code rounds the stride down and takes more steps than it is asked for, 31 for 30; here the strides differ by at
    most 1.

    Args:
        start: timestep of the noise, at least `steps`.
        steps: number of network evaluations, at least 1.
    """
    return tuple(1 + i * (start + 1) // steps for i in reversed(range(steps)))


def ddim(denoise: Denoiser, x: Array, schedule: Schedule, timesteps: Sequence[int], *, last: float = 1.0) -> jax.Array:
    """Deterministic DDIM (arXiv 2010.02502, Eq. 12, eta = 0).

    Args:
        denoise: predicts the noise in x_t.
        x: x_t at t = timesteps[0], [b ...].
        schedule: gives alpha_bar.
        timesteps: strictly falling; one network evaluation for each.
        last: alpha_bar of the final target; 1 returns the last prediction of x_0 itself.

    Returns:
        The sample at alpha_bar = `last`, [b ...], of x's type.
    """
    chex.assert_type(x, float, custom_message="x must be floating")
    alpha_bar = schedule.alpha_bar[list(timesteps)]
    target = np.append(alpha_bar[1:], last)
    inputs = (jnp.asarray(timesteps, jnp.int32), jnp.asarray(alpha_bar, x.dtype), jnp.asarray(target, x.dtype))

    def step(x, inputs):
        t, now, then = inputs
        noise = denoise(x, t)
        clean = (x - jnp.sqrt(1 - now) * noise) / jnp.sqrt(now)
        return jnp.sqrt(then) * clean + jnp.sqrt(1 - then) * noise, None

    return jax.lax.scan(step, jnp.asarray(x), inputs)[0]


def ddpm(
    denoise: Denoiser, x: Array, schedule: Schedule, start: int, keys: Array, *, sign: Array | None = None
) -> jax.Array:
    """Ancestral sampling through every timestep start, start - 1, ..., 0 (DDPM, Algorithm 2; Eq. 21 of DPDiff-AD).

    Args:
        denoise: predicts the noise in x_t.
        x: x_t at t = start, [b ...].
        schedule: gives beta and alpha_bar; the variance is the posterior's, beta-tilde (Eq. 4).
        start: first timestep.
        keys: one PRNG key for each image [b]; each step folds in its t. No noise is added at the last step.
        sign: what the noise of the steps is multiplied by, for all or [b ...]: -1 for the other half of an antithetic
            pair, None for 1.

    Returns:
        The sample of x_0, [b ...].
    """
    chex.assert_type(x, float, custom_message="x must be floating")
    chex.assert_shape(keys, x.shape[:1], custom_message="keys must be [b], one for each image of x [b ...]")
    timesteps = np.arange(start, -1, -1)
    beta, now = schedule.beta[timesteps], schedule.alpha_bar[timesteps]
    then = np.append(schedule.alpha_bar[timesteps[1:]], 1.0)
    sigma = np.sqrt((1 - then) / (1 - now) * beta)
    columns = (1 / np.sqrt(1 - beta), beta / np.sqrt(1 - now), sigma)
    inputs = (jnp.asarray(timesteps, jnp.int32), *(jnp.asarray(column, x.dtype) for column in columns))

    def step(x, inputs):
        t, scale, weight, sigma = inputs
        mean = scale * (x - weight * denoise(x, t))
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, t)
        noise = normal_per_image(step_keys, x.shape[1:]).astype(x.dtype)
        return mean + sigma * (noise if sign is None else sign * noise), None

    return jax.lax.scan(step, jnp.asarray(x), inputs)[0]


def normal_per_image(keys: Array, shape: Sequence[int]) -> jax.Array:
    """Standard normal noise, float32 [b *shape], row i from keys[i] alone, so that it does not depend on the batch."""
    chex.assert_rank(keys, 1, custom_message="keys must be [b], of jax.random.key")
    return jax.vmap(lambda key: normal(key, shape))(keys)
