"""What `freeze` makes of a network's arrays."""

from collections import Counter

import jax.numpy as jnp
from flax import nnx

from jaxad.nn.variables import Fixed, Frozen, Memory, Statistic, freeze


class Network(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.mean, self.seen = Statistic(jnp.zeros(2)), Memory.empty()


def kinds(module):
    return Counter(type(variable) for _, variable in nnx.to_flat_state(nnx.state(module)))


def test_every_array_of_a_network_is_frozen_but_what_belongs_to_the_detector():
    network = Network(nnx.Rngs(0))
    assert freeze(network) is network
    # Two kernels and biases; scale, bias, mean and variance of the norm.
    assert kinds(network) == {Frozen: 8, Statistic: 1, Memory: 1}


def test_a_part_may_be_frozen_in_another_way():
    network = freeze(Network(nnx.Rngs(0)))
    freeze(network.layers, Fixed)
    assert kinds(network) == {Frozen: 4, Fixed: 4, Statistic: 1, Memory: 1}
    assert kinds(freeze(network, Fixed)) == {Fixed: 8, Statistic: 1, Memory: 1}
