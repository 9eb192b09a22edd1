import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import save_file

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.backbone import Backbone, backbone_from_config, load_backbone
from jaxad.models.convnets.resnet import TORCHVISION
from jaxad.models.vit.checkpoints import HUGGINGFACE_VIT, ORIGINAL
from jaxad.models.vit.config import ViTConfig
from jaxad.models.weights.conversion import convert
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization
from jaxad.nn.variables import Frozen
from tests.models.convnets.made_checkpoints import BASIC, SMALL, tensors_of, write_folder
from tests.models.vit.made_checkpoints import write_dinov2

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 21, 35, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    write_dinov2(folder, registers=4)
    return load_backbone(str(folder))


def features(backbone, images, blocks):
    graphdef, arrays = module_state.split(backbone)
    return jax.jit(lambda arrays, images: module_state.merge(graphdef, arrays).features(images, blocks))(arrays, images)


def test_features_are_the_mean_patch_tokens_of_the_normalized_image(backbone):
    normalized = (IMAGES / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    taps = jax.jit(lambda images: backbone.network.taps(images, (0, 2)))(normalized.astype(np.float32))
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
    with pytest.raises(ConfigError, match="30 x 30 pixels: both sides must be multiples of 7"):
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


@pytest.mark.parametrize("change", [{"family": "resnet"}, {"family": "vgg"}, {"color": 1}, {"shape": {"girth": 3}}])
def test_config_of_something_else_is_refused(backbone, change):
    with pytest.raises(ConfigError):
        backbone_from_config({**backbone.config_json(), **change})


@pytest.mark.parametrize("blocks", [(0, 1, 2), (3, 1)], ids=["strides 4, 8, 16", "other stages"])
def test_features_of_a_convolutional_network_are_its_stages_side_by_side_on_one_grid(blocks):
    backbone = Backbone.random(BASIC, jax.random.key(0))
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    normalized = (images / 255 - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    taps = jax.jit(lambda images: backbone.network.taps(images, (0, 1, 2, 3)))(normalized.astype(np.float32))
    stages = {
        0: np.asarray(taps[0]).reshape(2, 4, 4, 6, 4, 8).mean((2, 4)),
        1: np.asarray(taps[1]).reshape(2, 4, 2, 6, 2, 8).mean((2, 4)),
        2: np.asarray(taps[2]),
        3: jax.image.resize(taps[3], (2, 4, 6, 24), "bilinear"),
    }
    expected = np.concatenate([stages[block] for block in sorted(blocks)], axis=-1)
    actual = features(backbone, images, blocks)
    assert backbone.width(blocks) == expected.shape[-1]
    assert backbone.grid((64, 96)) == (4, 6)
    np.testing.assert_allclose(actual, expected.reshape(2, 24, -1), atol=1e-5)


def test_stages_of_a_convolutional_network_are_chosen_by_number_or_stride():
    resnet, efficientnet = (Backbone.random(shape, jax.random.key(0)) for shape in (BASIC, SMALL))
    for blocks in (None, "middle"):
        assert resnet.select_blocks(blocks) == (0, 1, 2)
        assert efficientnet.select_blocks(blocks) == (1, 2, 4)
    assert (resnet.depth, efficientnet.depth, resnet.patch) == (4, 7, 16)
    assert efficientnet.width((1, 2, 4)) == 16 + 24 + 40
    with pytest.raises(ConfigError, match=r"has blocks 0 to 3, not \[4\]"):
        resnet.select_blocks((4,))


@pytest.mark.parametrize(
    ("depth", "middle"), [(1, (0,)), (2, (0,)), (3, (1,)), (12, (4, 5, 6, 7)), (24, tuple(range(8, 16)))]
)
def test_middle_blocks_are_a_third_of_the_depth(depth, middle):
    backbone = Backbone.random(ViTConfig(16, depth, 1, 8, image_size=8, hidden=16), jax.random.key(0))
    assert backbone.select_blocks("middle") == middle


def test_normalization_is_read_from_the_folder_and_kept(tmp_path):
    """Half the first kernel undoes an input of twice the scale."""
    network, tensors = tensors_of(BASIC, "torchvision")
    plain = Backbone(network, id="", sha256="", bytes=0, dtype="float32")
    mean, std = np.array(IMAGENET.mean), np.array(IMAGENET.std)
    processor = {"image_mean": mean.tolist(), "image_std": (std / 2).tolist()}
    half = {**to_torch(network, TORCHVISION), "conv1.weight": tensors["conv1.weight"] / 2}
    folder = write_folder(tmp_path / "net", half, {"architecture": "resnet18"}, preprocessor_config=processor)
    backbone = load_backbone(str(folder))
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    np.testing.assert_allclose(features(backbone, images, (0, 1, 2)), features(plain, images, (0, 1, 2)), atol=1e-5)
    again = backbone_from_config(json.loads(json.dumps(backbone.config_json())))
    assert again.normalization == backbone.normalization == Normalization(tuple(mean), tuple(std / 2))
    assert again.network.config == BASIC


def test_vit_that_does_not_say_how_images_are_normalized(tmp_path):
    """As DINO without a classifier, as supervised networks with one."""
    shape = ViTConfig(64, 1, 1, 8, image_size=16, hidden=32, layer_scale=False, norm_eps=1e-12)
    tensors = to_torch(Backbone.random(shape, jax.random.key(0)).network, HUGGINGFACE_VIT)
    sizes = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 32}
    config = {"model_type": "vit", **sizes, "image_size": 16, "patch_size": 8}
    said = {"image_mean": (0.1, 0.2, 0.3), "image_std": IMAGENET.std}
    for name, others in (("silent", {}), ("dino", {"preprocessor_config": said})):
        write_folder(tmp_path / name, tensors, config, **others)
    assert load_backbone(str(tmp_path / "silent")).normalization == IMAGENET
    convert(tmp_path / "dino", tmp_path / "converted")
    backbone = load_backbone(str(tmp_path / "converted"))
    assert (backbone.normalization.mean, backbone.network.config) == ((0.1, 0.2, 0.3), shape)
    original = to_torch(backbone.network, ORIGINAL)
    save_file(original, tmp_path / "dino.safetensors")
    save_file({**original, "head.weight": np.zeros((2, 64), np.float32)}, tmp_path / "supervised.safetensors")
    assert load_backbone(str(tmp_path / "dino.safetensors")).normalization == IMAGENET
    assert load_backbone(str(tmp_path / "supervised.safetensors")).normalization == INCEPTION


def test_model_type_that_is_no_backbone_is_named(tmp_path):
    folder = write_folder(tmp_path / "net", {"x": np.ones(1)}, {"model_type": "clip"})
    with pytest.raises(WeightsError, match=r"model_type = 'clip'.*vit"):
        load_backbone(str(folder))


def test_arrays_are_frozen(backbone):
    for network in (backbone, backbone_from_config(backbone.config_json()), load_backbone("random:16x1")):
        assert {type(variable) for _, variable in nnx.to_flat_state(nnx.state(network))} == {Frozen}


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


@pytest.mark.parametrize(("name", "width"), [("random:resnet18", 448), ("random:efficientnet_lite0", 176)])
def test_published_shapes_are_there_untrained(name, width):
    backbone = load_backbone(name)
    assert (backbone.id, backbone.width(backbone.select_blocks())) == (name, width)


@pytest.mark.parametrize("name", ["random:32", "random:0x2", "random:32x2x14x1", "random:axb", "random:resnet19"])
def test_malformed_random_name_is_explained(name):
    with pytest.raises(ConfigError, match="random:WIDTHxDEPTH"):
        load_backbone(name)
