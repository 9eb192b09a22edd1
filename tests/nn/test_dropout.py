import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn.dropout import Dropout


def test_a_share_is_set_to_zero_and_every_call_draws_anew():
    drop, x = Dropout(0.4, jax.random.key(0)), jnp.ones((100, 300))
    first, second = (np.asarray(drop(x)) for _ in range(2))
    assert not np.array_equal(first, second)
    assert (first == 0).mean() == pytest.approx(0.4, abs=0.02)
    np.testing.assert_allclose(np.unique(first), [0, 1 / 0.6], rtol=1e-6)
    np.testing.assert_array_equal(Dropout(0.4, jax.random.key(0))(x), first)


@pytest.mark.parametrize("drop", [Dropout(0.4, None), Dropout(0.0, jax.random.key(0))])
def test_without_key_or_share_nothing_changes(drop):
    x = jnp.ones((3, 4))
    assert drop(x) is x
