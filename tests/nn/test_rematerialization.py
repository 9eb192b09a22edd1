import jax
import jax.numpy as jnp
import numpy as np

from jaxad.nn.rematerialization import rematerialized


def test_rematerialized_layers_have_the_same_gradient():
    def loss(kernel, x, remat):
        # As in a network, the layer closes over its parameters.
        return jnp.sin(rematerialized(lambda x: jnp.tanh(x @ kernel), remat)(x)).sum()

    kernel, x = jnp.arange(6.0).reshape(3, 2) / 6, jnp.ones((4, 3))
    plain, again = (jax.grad(loss)(kernel, x, remat) for remat in (False, True))
    np.testing.assert_allclose(again, plain, rtol=1e-6)
    assert np.abs(plain).max() > 0.1
