"""The published networks at their full size, without arrays."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import pytest

from jaxad.models.catalog import PARAMETERS, networks
from jaxad.nn import module_state

EXACT = {
    "SD 1.5 UNet": 859_520_964,
    "SD 2 inpainting UNet": 865_925_124,
    "SD AutoencoderKL": 83_653_863,
}
"""Counts of the tensors in the published files."""
MILLIONS = {
    "SD 1.5 text tower": 123.06,
    "SD 2 text tower": 340.39,
    "DINOv2-B/14": 86.58,
    "DINO S/8": 21.67,
    "OpenCLIP ViT-B/16+ 240": 208.38,
}
"""The same, in millions."""


def test_counts_are_those_of_the_published_files():
    assert {name: PARAMETERS[name] for name in EXACT} == EXACT
    for name, millions in MILLIONS.items():
        assert PARAMETERS[name] / 1e6 == pytest.approx(millions, abs=0.0051), name
    assert PARAMETERS["DINOv2-B/14 registers"] - PARAMETERS["DINOv2-B/14"] == 3072


SMALL = {"DINOv2-S/14", "ResNet-18", "EfficientNet-Lite0", "CLIP ViT-B/32", "SD AutoencoderKL", "SD 1.5 text tower"}
"""One network of each kind, whose forward pass is traced in seconds."""


@pytest.mark.slow
def test_every_network_has_the_parameters_it_says():
    assert [network.name for network in networks()] == list(PARAMETERS)
    for network in networks():
        graphdef, arrays = module_state.split(network.abstract(jnp.bfloat16))
        assert sum(math.prod(array.shape) for array in arrays.values()) == network.parameters, network.name
        if network.name in SMALL:

            def run(arrays, *inputs, graphdef=graphdef, network=network):
                return network.forward(module_state.merge(graphdef, arrays), *inputs)

            outputs = jax.tree.leaves(jax.eval_shape(run, arrays, *network.inputs))
            assert all(output.shape[0] == 1 for output in outputs), network.name
