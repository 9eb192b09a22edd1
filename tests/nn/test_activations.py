import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.activations import gelu, softmax


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)


def test_softmax_and_its_gradient_are_those_of_float32():
    logits, weights = np.random.default_rng(0).normal(size=(2, 4, 7)).astype(np.float32) * 3

    def both(layer):
        found, back = jax.vjp(layer, logits)
        return found, back(weights.astype(found.dtype))[0].astype(jnp.float32)

    exact, gradient = both(jax.nn.softmax)
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)):
        found = both(lambda logits, dtype=dtype: softmax(logits, dtype))
        assert found[0].dtype == dtype
        np.testing.assert_allclose(found[0].astype(np.float32), exact, atol=tolerance)
        np.testing.assert_allclose(found[1], gradient, atol=tolerance)


def test_only_the_rounded_softmax_is_kept_for_the_gradient():
    logits = jnp.zeros((4, 7), jnp.bfloat16)
    _, back = jax.vjp(lambda logits: softmax(logits, jnp.bfloat16), logits)
    assert {array.dtype for array in jax.tree.leaves(back) if array.size > 1} == {jnp.dtype(jnp.bfloat16)}
