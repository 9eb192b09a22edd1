import jax.numpy as jnp
from flax import nnx

from jaxad.nn import module_state


class Two(nnx.Module):
    def __init__(self, first, second):
        self.first, self.second = nnx.Param(jnp.asarray(first)), nnx.Param(jnp.asarray(second))


def test_a_digest_tells_values_places_shapes_and_types():
    one = Two([1.0, 2.0], [3.0])
    assert module_state.digest(one) == module_state.digest(Two([1.0, 2.0], [3.0]))
    others = [
        Two([1.0, 2.5], [3.0]),
        Two([3.0], [1.0, 2.0]),
        Two([[1.0], [2.0]], [3.0]),
        Two(jnp.array([1.0, 2.0], jnp.bfloat16), [3.0]),
        Two([1.0], [2.0, 3.0]),
    ]
    assert len({module_state.digest(module) for module in (one, *others)}) == 6
    assert module_state.digest(one, others[0]) != module_state.digest(others[0], one)
