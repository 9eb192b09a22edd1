"""The linear denoiser against a torch implementation in double precision that solves with the covariance itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import jaxad
from jaxad.detectors.linear import LinearDenoiser
from jaxad.features import FeatureCache
from jaxad.testing import BACKBONE
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity


def correlated(images, seed):
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(5)
    mix = fixed.normal(size=(32, 32)) * fixed.uniform(0.05, 4, 32)[:, None]
    return (rng.normal(size=(images, 16, 32)) @ mix + fixed.normal(size=32)).astype(np.float32)


def by_torch(known, x, t, residual):
    """Residuals [b n]: scale channels, then the posterior mean of x0 given the mean of x_t, by one linear solve."""
    known, x = (torch.tensor(array, dtype=torch.float64) for array in (known, x))
    known = known.reshape(-1, known.shape[-1])
    mean, std = known.mean(0), known.std(0, correction=0)
    standard = (x - mean) / std
    alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)[t]
    covariance = torch.cov(((known - mean) / std).T, correction=0)
    noisy = alpha_bar * covariance + (1 - alpha_bar) * torch.eye(len(mean))
    x_t = alpha_bar.sqrt() * standard
    restored = torch.linalg.solve(noisy, x_t.reshape(-1, len(mean)).T).T.reshape(x.shape)
    restored = alpha_bar.sqrt() * restored @ covariance
    if residual == "squared":
        return (restored - standard).square().sum(-1)
    return 1 - torch.nn.functional.cosine_similarity(restored * std + mean, x, dim=-1)


@pytest.mark.parametrize("residual", ["squared", "cosine"])
@pytest.mark.parametrize("t", [50, 250, 900])
def test_maps_are_those_of_a_linear_solve(parts, t, residual):
    config = jaxad.LinearConfig(backbone=BACKBONE, image_size=56, start_timestep=t, residual=residual)
    known, x = correlated(len(parts.train), 0), correlated(4, 1)
    # Patches unlike the known ones: what is left of others lies below the digits of a cosine in float32.
    x += 3 * np.random.default_rng(2).normal(size=x.shape).astype(np.float32)
    model = LinearDenoiser.create(config).remember(parts.train, features=FeatureCache(Features(known, (4, 4)), ""))
    found = twins.judged(model, Features(x, (4, 4))).reshape(4, 16)
    expected = by_torch(known, x, t, residual).numpy()
    assert twins.error(found, expected) < twins.BOUND
