"""PaDiM against a torch implementation in double precision that inverts every covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import jaxad
from jaxad.detectors.padim import PaDiM
from jaxad.features import FeatureCache
from jaxad.testing import BACKBONE
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity


def by_torch(known, x, regularization):
    """Mahalanobis distances [b n] of x [b n d] to the Gaussians of known [m n d]."""
    known, x = (torch.tensor(array, dtype=torch.float64) for array in (known, x))
    places = []
    for place in range(x.shape[1]):
        covariance = torch.cov(known[:, place].T) + regularization * torch.eye(x.shape[2])
        delta = x[:, place] - known[:, place].mean(0)
        places.append((delta @ torch.linalg.inv(covariance) * delta).sum(-1).sqrt())
    return torch.stack(places, 1)


@pytest.mark.parametrize("regularization", [0.01, 1.0])
def test_maps_are_mahalanobis_distances(parts, regularization):
    rng = np.random.default_rng(0)
    known = rng.normal(size=(len(parts.train), 16, 32)) * rng.uniform(0.3, 3, (16, 32)) + rng.normal(size=(16, 32))
    known, x = known.astype(np.float32), rng.normal(size=(4, 16, 32)).astype(np.float32)
    config = jaxad.PaDiMConfig(backbone=BACKBONE, image_size=56, dimensions=20, regularization=regularization)
    cache = FeatureCache(Features(known, (4, 4)), "")
    model = PaDiM.create(config).remember(parts.train, features=cache)
    found = twins.judged(model, Features(x, (4, 4))).reshape(4, 16)
    chosen = np.asarray(model.chosen[...])
    expected = by_torch(known[..., chosen], x[..., chosen], regularization).numpy()
    assert twins.error(found, expected) < twins.BOUND
