import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.testing import toy_training
from jaxad.training.optimizer import make_optimizer
from jaxad.training.stable_adamw import stable_adamw


def steps(gradients, **settings):
    """Updates of one array of 10s for gradients [t 2], by a rate of 1."""
    optimizer, params = stable_adamw(lambda step: 1.0, **settings), jnp.full(2, 10.0)

    def step(state, gradient):
        updates, state = optimizer.update(gradient, state, params)
        return state, updates

    return np.asarray(jax.lax.scan(step, optimizer.init(params), jnp.asarray(gradients))[1])


def test_a_gradient_that_outgrows_its_past_makes_a_smaller_step():
    calm = np.ones((501, 2))
    jumping = np.concatenate([calm[:500], np.full((1, 2), 100.0)])
    usual, jump = steps(calm)[-1], steps(jumping)[-1]
    np.testing.assert_allclose(usual, -1, rtol=1e-5)
    # Adam would step by about 11 / 4 here.
    assert (np.abs(jump) < 0.3).all()


def test_the_denominator_never_shrinks():
    found = steps(np.concatenate([np.full((1, 2), 100.0), np.ones((3000, 2))]))
    assert (np.abs(found[-1]) < 0.35).all()


def test_weight_decay_takes_the_rate_alone():
    found = steps(np.zeros((1, 2)), weight_decay=0.1)
    np.testing.assert_allclose(found[0], -0.1 * 10, rtol=1e-6)


def test_trainers_take_optimizers_by_name():
    params = {"a/kernel": jnp.ones((4, 4)), "a/bias": jnp.ones(4)}
    rng = np.random.default_rng(0)
    gradients = {path: jnp.asarray(rng.normal(size=array.shape), jnp.float32) for path, array in params.items()}
    found = {}
    for name in ("adam", "stable-adamw", "muon"):
        config = toy_training(optimizer=name, clip_norm=None, learning_rate=0.1)
        optimizer, rate = make_optimizer(config)
        found[name] = optimizer.update(gradients, optimizer.init(params), params)[0]
        assert float(rate(5)) == pytest.approx(0.1)
    np.testing.assert_allclose(found["adam"]["a/bias"], -0.1 * np.sign(gradients["a/bias"]), rtol=1e-4)
    singular = np.linalg.svd(np.asarray(found["muon"]["a/kernel"]))[1]
    # All directions of a matrix move alike, and 10 times as far as its rate says.
    assert singular.min() > 0.5
    assert singular.max() < 1.5


def test_a_cosine_ends_where_it_is_told_to():
    _, rate = make_optimizer(
        toy_training(steps=110, warmup_steps=10, learning_rate=2.0, schedule="cosine", final_rate=0.1)
    )
    assert [float(rate(step)) for step in (10, 60, 110)] == [
        pytest.approx(value, rel=1e-5) for value in (2.0, 1.1, 0.2)
    ]


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_muon_decays_all_arrays_alike(decay):
    params = {"a": jnp.full((3, 3), 2.0), "b": jnp.full(3, 2.0)}
    zeros = {path: jnp.zeros_like(array) for path, array in params.items()}
    optimizer, _ = make_optimizer(toy_training(optimizer="muon", clip_norm=None, weight_decay=decay, learning_rate=0.5))
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    for update in updates.values():
        np.testing.assert_allclose(update, -0.5 * decay * 2, atol=1e-6)
