"""Loops over parts of a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad import parallel
from jaxad.nn.loops import by_parts, in_order, in_parts


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_parts_make_what_the_whole_makes_in_its_order(parts):
    rows = np.arange(12.0).reshape(6, 2)
    seen = []

    def double(a, b):
        seen.append(a.shape)
        return 2 * a, a + b

    found = by_parts(double, parts, rows, rows + 1)
    np.testing.assert_array_equal(found, [2 * rows, 2 * rows + 1])
    assert set(seen) == {(6 // parts, 2)}


def test_every_part_has_rows_of_every_device():
    assert in_parts(np.arange(6), 3).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_order_is_asked_for_on_one_device_and_gathers_nothing_on_several():
    like = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    alone = str(jax.make_jaxpr(in_order)(like))
    assert "layout_constraint" in alone
    mesh = parallel.make_mesh(2, jax.devices()[:2])
    assert "layout_constraint" not in str(jax.make_jaxpr(parallel.on_mesh(in_order, mesh))(like))
