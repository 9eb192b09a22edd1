"""Noise that CPUs draw faster is that of `jax.random.normal`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.nn.noise import normal


@pytest.mark.parametrize("shape", [(), (1,), (33,), (5, 7, 2), (0, 3)])
@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_the_numbers_are_those_of_jax(shape, seed):
    """Of one key and of several at once, in a program and outside of one."""
    key = jax.random.fold_in(jax.random.key(seed), 3)
    noise = normal(key, shape)
    assert (noise.shape, noise.dtype) == (shape, jnp.float32)
    np.testing.assert_array_equal(noise, jax.random.normal(key, shape))
    keys = jax.random.split(key, 3)
    of_all = jax.jit(jax.vmap(lambda key: normal(key, shape)))(keys)
    np.testing.assert_array_equal(of_all, jax.vmap(lambda key: jax.random.normal(key, shape))(keys))


def test_other_generators_and_settings_draw_what_they_draw():
    key = jax.random.key(1, impl="rbg")
    np.testing.assert_array_equal(normal(key, (9,)), jax.random.normal(key, (9,)))
    key = jax.random.key(1)
    usual = np.asarray(normal(key, (9,)))
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(normal(key, (9,)), jax.random.normal(key, (9,)))
        assert not np.array_equal(usual, normal(key, (9,)))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_only_cpus_draw_it_in_one_expression(platform):
    """Without JAX's loop; the others leave Threefry to JAX."""
    lowered = jax.jit(lambda key: normal(key, (64,))).trace(jax.random.key(0)).lower(lowering_platforms=(platform,))
    text = lowered.as_text()
    assert "while" not in text
    assert ("threefry2x32" in text) == (platform != "cpu")
