import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import ConfigError
from jaxad.models.vit import network as vit
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import abstract_vit, load_vit
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.nn import module_state
from jaxad.nn.positions import resize_matrix
from tests.models.vit.made_checkpoints import PATCH, SIDE, write_dinov2
from tests.models.vit.made_checkpoints import forward as slow_forward


def run(network, images, taps=()):
    """The network as one compiled program, as it is always used."""
    graphdef, arrays = module_state.split(network)
    return jax.jit(lambda arrays, images: module_state.merge(graphdef, arrays)(images, taps))(arrays, images)


def error(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.sqrt(np.mean(expected**2))


def assert_equals_reference(network, tensors, grid):
    images = np.random.default_rng(1).normal(size=(2, grid[0] * PATCH, grid[1] * PATCH, 3))
    rows, columns = (resize_matrix(SIDE, new, network.config.interpolation) for new in grid)
    square = tensors["embeddings.position_embeddings"][0, 1:].reshape(SIDE, SIDE, -1)
    positions = np.einsum("hy,wx,yxc->hwc", rows, columns, square).reshape(grid[0] * grid[1], -1)
    *expected_taps, expected = slow_forward(tensors, images, positions)

    with jax.default_matmul_precision("highest"):
        x, taps = run(network, images, (0, 1, 2))

    assert error(x, expected) < 1e-5
    for block, tap in enumerate(expected_taps):
        assert error(taps[block], tap) < 1e-5
    np.testing.assert_array_equal(network.patches(x), x[:, 1 + network.config.registers :])


@pytest.mark.parametrize("grid", [(5, 5), (3, 7)])
@pytest.mark.parametrize("kind", [{}, {"registers": 4}, {"swiglu": True}], ids=["plain", "registers", "swiglu"])
def test_dinov2_equals_numpy_reference(tmp_path, grid, kind):
    tensors = write_dinov2(tmp_path, **kind)
    network = load_vit(find_weights(tmp_path))
    assert network.config.interpolation == ("antialias" if kind.get("registers") else "bicubic")
    assert_equals_reference(network, tensors, grid)


def test_vit_equals_dinov2_with_gains_of_one(tmp_path):
    tensors = write_dinov2(tmp_path)
    tensors |= {name: np.ones_like(tensor) for name, tensor in tensors.items() if "lambda1" in name}
    names = {"norm1": "layernorm_before", "norm2": "layernorm_after", "mlp.fc1": "intermediate.dense"}
    names |= {"mlp.fc2": "output.dense"}
    renamed = {
        functools.reduce(lambda name, old: name.replace(old, names[old]), names, name): tensor
        for name, tensor in tensors.items()
        if "lambda1" not in name
    }
    config = {**find_weights(tmp_path).config, "model_type": "vit", "intermediate_size": 96, "layer_norm_eps": 1e-6}
    network = load_vit(Weights("vit", config, (), renamed), interpolation="dinomaly")
    assert_equals_reference(network, tensors, (3, 7))


def test_dinomaly_interpolation_is_an_option(tmp_path):
    write_dinov2(tmp_path, registers=4)
    images = np.zeros((1, 3 * PATCH, 3 * PATCH, 3), np.float32)
    usual, dinomaly = (load_vit(find_weights(tmp_path), interpolation=i).embed(images) for i in (None, "dinomaly"))
    np.testing.assert_array_equal(usual[:, :5], dinomaly[:, :5])
    assert np.abs(usual[:, 5:] - dinomaly[:, 5:]).max() > 0.1


def test_blocks_above_the_deepest_tap_do_not_run(tmp_path, monkeypatch):
    write_dinov2(tmp_path)
    network, runs, run = load_vit(find_weights(tmp_path)), [], vit.Block.__call__
    monkeypatch.setattr(vit.Block, "__call__", lambda block, x: (runs.append(block), run(block, x))[1])
    images = np.zeros((1, PATCH, PATCH, 3), np.float32)
    assert set(jax.eval_shape(lambda: network.taps(images, (1, 0)))) == {0, 1}
    assert runs == list(network.blocks)[:2]
    x, taps = jax.eval_shape(lambda: network(images, (1,)))
    assert len(runs) == 2 + 3
    assert list(taps) == [1]
    assert x.shape == (1, 2, 24)


@pytest.mark.parametrize("blocks", [(), (3,), (-1, 0)])
def test_blocks_that_do_not_exist_are_named(tmp_path, blocks):
    write_dinov2(tmp_path)
    network = load_vit(find_weights(tmp_path))
    with pytest.raises(ConfigError, match=r"blocks = \[.*\]: needs one or more of 0 to 2"):
        network.taps(np.zeros((1, PATCH, PATCH, 3), np.float32), blocks)


@pytest.mark.parametrize("size", [(7, 15), (20, 21), (0, 7)])
def test_size_that_is_no_multiple_of_the_patch_is_named(tmp_path, size):
    write_dinov2(tmp_path)
    with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} pixels.*multiples of 7"):
        load_vit(find_weights(tmp_path)).taps(np.zeros((1, *size, 3), np.float32), (0,))


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(tmp_path):
    write_dinov2(tmp_path, registers=4)
    weights, images = find_weights(tmp_path), np.random.default_rng(1).normal(size=(1, 35, 35, 3))
    network = load_vit(weights, jnp.bfloat16)
    (expected, _), (actual, _) = run(load_vit(weights), images), run(network, images)
    assert actual.dtype == jnp.bfloat16
    assert {array.dtype for array in module_state.split(network)[1].values()} == {np.dtype("float32")}
    assert 1e-4 < error(actual.astype(jnp.float32), np.asarray(expected)) < 0.1


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ViTConfig.dinov2("base"), 86_579_712),
        (ViTConfig.dinov2("base", registers=4), 86_582_784),
        (ViTConfig.dino("small", 8), 21_670_272),
    ],
)
def test_parameter_counts(config, parameters):
    """Without the mask token, which only pretraining uses: 768 fewer than DINOv2-B's file holds."""
    _, arrays = module_state.split(abstract_vit(config))
    assert sum(int(np.prod(array.shape)) for array in arrays.values()) == parameters


def test_optional_parts_leave_no_parameters():
    config = ViTConfig(16, 1, 2, 4, image_size=8, hidden=32, layer_scale=False, qkv_bias=False)
    _, arrays = module_state.split(abstract_vit(config))
    assert not [path for path in arrays if "scale1" in path or "registers" in path or "query/bias" in path]


def test_it_gives_maps_of_the_whole_network_alone(tmp_path):
    write_dinov2(tmp_path)
    network = load_vit(find_weights(tmp_path))
    with pytest.raises(ConfigError, match=r"stages = \[1\]"):
        network.maps(np.zeros((1, PATCH, PATCH, 3), np.float32), (1,))
