"""The global loss of DPDiff-AD against POT, the library of optimal transport."""

from __future__ import annotations

import jax
import numpy as np
import ot
import pytest

from jaxad.memory.prototypes import global_loss

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_value_and_gradient(epsilon):
    rng = np.random.default_rng(0)
    tokens, prototypes = rng.normal(size=(2, 30, 8)), rng.normal(size=(2, 4, 8))
    channels = tokens.shape[-1]
    value, gradients = 0.0, np.zeros_like(prototypes)
    for image in range(2):
        cost = ot.dist(tokens[image], prototypes[image]) / channels
        masses = ot.unif(30), ot.unif(4)
        plan = ot.sinkhorn(*masses, cost, epsilon, method="sinkhorn_log", numItermax=20000, stopThr=1e-12)
        value += channels * ((plan * cost).sum() + epsilon * (plan * np.log(plan)).sum()) / 2
        # By the envelope theorem: the plan is held, and the squared distances are differentiated.
        gradients[image] = (plan.sum(0)[:, None] * prototypes[image] - plan.T @ tokens[image]) * 2 / 2

    def loss(prototypes):
        return global_loss(np.float32(tokens), prototypes, epsilon=epsilon, iterations=2000)[0]

    ours, gradient = jax.value_and_grad(loss)(np.float32(prototypes))
    assert float(ours) == pytest.approx(value, rel=1e-4)
    np.testing.assert_allclose(gradient, gradients, rtol=0, atol=1e-4 * np.abs(gradients).max())
