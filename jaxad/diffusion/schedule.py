"""Noise schedules and the forward process.

Everywhere in jaxad t is the index, counted from 0, into arrays of length T; alpha_bar_t is the product of (1 - beta_s)
for s = 0..t, and x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (DDPM, arXiv 2006.11239, Eq. 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import chex
import jax
import jax.numpy as jnp
import numpy as np

from jaxad.types import Array


@dataclass(frozen=True, eq=False)
class Schedule:
    """`beta` and `alpha_bar`, float64 [t]: constants of the program, rounded to float32 where they are used."""

    beta: np.ndarray
    alpha_bar: np.ndarray

    def __len__(self) -> int:
        return len(self.beta)

    def alpha_bar_at(self, t: Array) -> jax.Array:
        """alpha_bar as float32 of the shape of the integer array `t`, each in 0..T-1."""
        chex.assert_type(t, int, custom_message="t must hold integers")
        return jnp.asarray(self.alpha_bar, jnp.float32)[t]


def linear_schedule(timesteps: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """beta rises linearly from `beta_start` to `beta_end` over `timesteps` steps (DDPM)."""
    beta = np.linspace(beta_start, beta_end, timesteps, dtype=np.float64)
    return Schedule(beta, np.cumprod(1 - beta))


def scaled_linear_schedule(timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> Schedule:
    """sqrt(beta) rises linearly, as in Stable Diffusion (arXiv 2112.10752)."""
    beta = np.linspace(beta_start**0.5, beta_end**0.5, timesteps, dtype=np.float64) ** 2
    return Schedule(beta, np.cumprod(1 - beta))


def add_noise(x: Array, noise: Array, alpha_bar: Array) -> jax.Array:
    """x_t from x_0: `x` and `noise` [b ...], `alpha_bar` [b] or a scalar (Eq. 14 and 15 of DPDiff-AD)."""
    chex.assert_equal_shape([x, noise], custom_message="x and noise must have the same shape [b ...]")
    alpha_bar = _align(alpha_bar, x)
    return jnp.sqrt(alpha_bar) * x + jnp.sqrt(1 - alpha_bar) * noise


def velocity(x: Array, noise: Array, alpha_bar: Array) -> jax.Array:
    """v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0, the other target a denoiser can learn (arXiv 2202.00512).

    Shapes as for `add_noise`.
    """
    chex.assert_equal_shape([x, noise], custom_message="x and noise must have the same shape [b ...]")
    alpha_bar = _align(alpha_bar, x)
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * x


def epsilon_from_velocity(v: Array, x_t: Array, alpha_bar: Array) -> jax.Array:
    """The noise [b ...] that a predicted `v` and the noisy `x_t` [b ...] imply; `alpha_bar` [b] or a scalar."""
    chex.assert_equal_shape([v, x_t], custom_message="v and x_t must have the same shape [b ...]")
    alpha_bar = _align(alpha_bar, x_t)
    return jnp.sqrt(alpha_bar) * v + jnp.sqrt(1 - alpha_bar) * x_t


def epsilon_from_clean(x: Array, x_t: Array, alpha_bar: Array) -> jax.Array:
    """The noise [b ...] that a guess `x` of x_0 and the noisy `x_t` [b ...] imply; `alpha_bar` [b] or a scalar."""
    chex.assert_equal_shape([x, x_t], custom_message="x and x_t must have the same shape [b ...]")
    x_t = jnp.asarray(x_t)
    alpha_bar = _align(alpha_bar, x_t)
    return (x_t - jnp.sqrt(alpha_bar) * x) / jnp.sqrt(1 - alpha_bar)


def _align(alpha_bar: Array, x: Array) -> jax.Array:
    """alpha_bar with as many axes as x, so that row i scales image i."""
    alpha_bar = jnp.asarray(alpha_bar)
    if alpha_bar.ndim:
        chex.assert_shape(alpha_bar, x.shape[:1], custom_message="alpha_bar must be [b] or a scalar")
    return alpha_bar.reshape(alpha_bar.shape + (1,) * (x.ndim - alpha_bar.ndim))
