import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.nn.precision import Linear, compute_dtype


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_named_types_are_taken_as_they_are(precision):
    assert compute_dtype(precision) == precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_products_come_out_in_float32_with_their_gradients(dtype, tolerance, use_bias):
    layer = Linear(32, 8, use_bias=use_bias, dtype=dtype, rngs=nnx.Rngs(0))
    exact = nnx.Linear(32, 8, use_bias=use_bias, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, 5, 32)).astype(np.float32)

    def loss(module, x):
        return jnp.square(module(x)).mean()

    chex.assert_type(layer(x), jnp.float32)
    chex.assert_shape(layer(x), (3, 5, 8))
    chex.assert_trees_all_close(layer(x), exact(x), atol=3 * tolerance)
    graph, state = nnx.split(layer)
    exact_graph, exact_state = nnx.split(exact)
    actual = jax.grad(lambda state: loss(nnx.merge(graph, state), x))(state)
    expected = jax.grad(lambda state: loss(nnx.merge(exact_graph, state), x))(exact_state)
    chex.assert_type(actual["kernel"].get_value(), jnp.float32)
    chex.assert_trees_all_close(actual["kernel"].get_value(), expected["kernel"].get_value(), atol=tolerance)
