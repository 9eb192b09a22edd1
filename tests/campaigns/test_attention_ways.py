"""Ways to attend that are compared are the same attention."""

import functools

import chex
import jax
import numpy as np
import pytest

from jaxad.nn.flash_attention import with_logits
from tests.campaigns.attention_ways import filled_up, ways, with_gradients


@pytest.mark.parametrize(("change", "number"), [(lambda attend: attend, 3), (with_gradients, 4)])
def test_heads_filled_up_with_zeros_attend_as_they_are(change, number):
    arrays = np.random.default_rng(0).normal(size=(number, 2, 7, 2, 5)).astype(np.float32)
    kernel = functools.partial(with_logits, causal=False)
    expected, found = (jax.jit(change(attend))(*arrays) for attend in (kernel, filled_up(kernel, 16)))
    chex.assert_trees_all_close(found, expected, atol=1e-5)


def test_heads_are_filled_up_to_more_than_they_have():
    assert list(ways("cuda", 80)) == ["XLA", "kernel", "kernel, filled up to 128", "kernel, filled up to 256"]
    assert list(ways("tpu", 256)) == ["XLA", "kernel"]
