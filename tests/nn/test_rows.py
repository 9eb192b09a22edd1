import jax
import jax.numpy as jnp
import numpy as np

from jaxad import parallel
from jaxad.nn.rows import apart, in_turn


def test_two_arrays_in_turn_come_apart_again():
    first, second = np.arange(6).reshape(3, 2), -np.arange(6).reshape(3, 2)
    both = in_turn(first, second)
    np.testing.assert_array_equal(both, [[0, 1], [0, -1], [2, 3], [-2, -3], [4, 5], [-4, -5]])
    for found, given in zip(apart(both), (first, second), strict=True):
        np.testing.assert_array_equal(found, given)


def test_rows_in_turn_stay_on_their_devices():
    mesh = parallel.make_mesh(2, jax.devices()[:2])
    given = parallel.shard_batch((np.ones((4, 3), np.float32),) * 2, mesh)

    def compared(first, second):
        return jnp.subtract(*apart(jnp.sin(in_turn(first, second))))

    program = jax.jit(compared, out_shardings=parallel.batch_sharding(mesh)).lower(*given).compile().as_text()
    assert not [line for line in program.splitlines() if "all-" in line or "permute" in line]
