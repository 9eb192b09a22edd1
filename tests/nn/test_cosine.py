import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn.cosine import cosine, cosines, unit


def test_cosine_and_unit_agree_with_float64_and_take_zeros():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x[0, 0], y[1] = 0, -3 * x[1]
    lengths = np.linalg.norm(x.astype(np.float64), axis=-1), np.linalg.norm(y.astype(np.float64), axis=-1)
    expected = (x.astype(np.float64) * y).sum(-1) / np.maximum(lengths[0] * lengths[1], 1e-30)
    np.testing.assert_allclose(cosine(x, y), expected, atol=3e-7)
    np.testing.assert_allclose((unit(x) * unit(y)).sum(-1), expected, atol=3e-7)
    chex.assert_type([cosine(x, y), unit(x.astype(jnp.bfloat16))], jnp.float32)
    assert np.isfinite(jax.grad(lambda x: cosine(x, y).sum())(jnp.asarray(x))).all()


def test_all_pairs_are_measured_and_zeros_are_0():
    x, y = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    x[0, 0] = 0
    expected = np.stack([cosine(x, np.broadcast_to(y[:, k : k + 1], x.shape)) for k in range(4)], -1)
    np.testing.assert_allclose(cosines(x, y), expected, atol=3e-7)
    np.testing.assert_allclose(cosines(x, y[0])[0], expected[0], atol=3e-7)
    gradient = jax.grad(lambda x: cosines(x, y).sum())(jnp.asarray(x))
    assert np.isfinite(gradient).all()


def test_different_shapes_are_refused():
    with pytest.raises(AssertionError, match="x and y must have the same shape"):
        cosine(np.ones((2, 3)), np.ones((1, 3)))
