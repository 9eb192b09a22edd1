import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad import module_state
from jaxad.errors import ConfigError
from jaxad.models.backbone import backbone_from_config, load_backbone
from tests.models.checkpoints import write_dinov2

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 21, 35, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    write_dinov2(folder, registers=4)
    return load_backbone(str(folder))


def features(backbone, images, blocks):
    graphdef, arrays = module_state.split(backbone)
    return jax.jit(lambda arrays, images: module_state.merge(graphdef, arrays).features(images, blocks))(arrays, images)


def test_features_are_the_mean_patch_tokens_of_the_normalised_image(backbone):
    normalised = (IMAGES / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    taps = jax.jit(lambda images: backbone.network.taps(images, (0, 2)))(normalised.astype(np.float32))
    expected = (taps[0][:, 5:] + taps[2][:, 5:]) / 2
    actual = features(backbone, IMAGES, (2, 0))
    chex.assert_shape(actual, (2, 15, 24))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_tokens_lie_row_by_row(backbone):
    """A change in the last patch of the first row moves token 4 more than any other."""
    changed = IMAGES.copy()
    changed[:, :7, 28:] = 255 - changed[:, :7, 28:]
    difference = np.abs(features(backbone, IMAGES, (0,)) - features(backbone, changed, (0,))).sum((0, 2))
    assert difference.argmax() == 4


def test_grid_belongs_to_the_image_size(backbone):
    assert backbone.grid(28) == (4, 4)
    assert backbone.grid((21, 35)) == (3, 5)
    with pytest.raises(ConfigError, match="30 x 30 pixels: both sides need to be multiples of 7"):
        backbone.grid(30)


def test_blocks_are_the_last_half_unless_given(backbone):
    assert backbone.select_blocks(None) == (1, 2)
    assert backbone.select_blocks((2, 0)) == (2, 0)
    with pytest.raises(ConfigError, match=r"has blocks 0 to 2, not \[-1, 3\]"):
        backbone.select_blocks((-1, 0, 3))


def test_block_that_does_not_exist_is_named(backbone):
    with pytest.raises(ConfigError, match="needs one or more of 0 to 2"):
        backbone.features(IMAGES, (3,))


def test_bfloat16_gives_float32_features_close_to_the_exact_ones(backbone):
    low = load_backbone(backbone.id, dtype="bfloat16")
    exact, actual = features(backbone, IMAGES, (1, 2)), features(low, IMAGES, (1, 2))
    assert actual.dtype == jnp.float32
    difference = np.sqrt(np.mean((actual - exact) ** 2) / np.mean(exact**2))
    assert 1e-4 < difference < 0.03


def test_rebuilt_from_its_json_without_the_source(backbone):
    values = json.loads(json.dumps(backbone.config_json()))
    abstract = backbone_from_config(values)
    graphdef, arrays = module_state.split(backbone)
    empty_graphdef, empty = module_state.split(abstract)
    assert {path: (x.shape, x.dtype) for path, x in empty.items()} == {p: (x.shape, x.dtype) for p, x in arrays.items()}
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in empty.values())
    assert empty_graphdef == graphdef
    rebuilt = module_state.merge(empty_graphdef, arrays)
    np.testing.assert_array_equal(features(rebuilt, IMAGES, (1,)), features(backbone, IMAGES, (1,)))
    assert rebuilt.config_json() == values
    assert backbone_from_config(values, dtype="bfloat16").dtype == "bfloat16"


@pytest.mark.parametrize("change", [{"network": "resnet"}, {"network": "vgg"}, {"colour": 1}, {"shape": {"girth": 3}}])
def test_config_of_something_else_is_refused(backbone, change):
    with pytest.raises(ConfigError):
        backbone_from_config({**backbone.config_json(), **change})


def test_arrays_are_ordinary_parameters(backbone):
    assert {type(variable) for _, variable in nnx.to_flat_state(nnx.state(backbone))} == {nnx.Param}


@pytest.mark.parametrize(("name", "shape"), [("random:32x2", (32, 2, 14)), ("random:20x3x7", (20, 3, 7))])
def test_random_backbones_are_always_the_same(name, shape):
    first, second = load_backbone(name), load_backbone(name)
    assert (first.width((0,)), first.depth, first.patch) == shape
    assert (first.id, first.sha256) == (name, "")
    images = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 3), dtype=np.uint8)
    tokens = features(first, images, (0, 1))
    np.testing.assert_array_equal(tokens, features(second, images, (0, 1)))
    assert np.std(tokens, axis=1).min() > 0.01
    assert first.bytes == sum(array.nbytes for array in module_state.split(first)[1].values())


@pytest.mark.parametrize("name", ["random:32", "random:0x2", "random:32x2x14x1", "random:axb"])
def test_malformed_random_name_is_explained(name):
    with pytest.raises(ConfigError, match="random:WIDTHxDEPTH"):
        load_backbone(name)
