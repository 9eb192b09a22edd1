import dataclasses

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxad.errors import WeightsError
from jaxad.models.backbone import load_backbone
from jaxad.models.convnets.efficientnet import EfficientNetConfig, abstract_efficientnet
from jaxad.models.convnets.efficientnet_checkpoints import LAYOUTS, is_efficientnet, load_efficientnet
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET, INCEPTION
from tests.models.convnets.made_checkpoints import SMALL, tensors_of, write_folder
from tests.models.convnets.test_resnet import assert_equal

LITE = dataclasses.replace(SMALL, lite=True)
SAME = {"padding": "same", "norm_eps": 1e-3}
TENSORFLOW = dataclasses.replace(SMALL, **SAME)


@pytest.mark.parametrize("shape", [SMALL, LITE], ids=["plain", "lite"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_bare_file_tells_the_shape(tmp_path, layout, shape):
    """What tensors do not tell is as the layout's authors do it."""
    expected, tensors = tensors_of(shape, layout, others=("classifier.weight", "x.num_batches_tracked"))
    save_file(tensors, tmp_path / "net.safetensors")
    untold = {"original": SAME, "huggingface": {"padding": "trailing", "norm_eps": 1e-3}}
    backbone = load_backbone(str(tmp_path / "net.safetensors"))
    assert backbone.network.config == dataclasses.replace(shape, **untold.get(layout, {}))
    assert backbone.normalization == (INCEPTION if shape.lite and layout == "original" else IMAGENET)
    assert_equal(backbone.network, expected)


def test_weights_ported_from_tensorflow_are_known_by_their_name(tmp_path):
    _, tensors = tensors_of(SMALL, "timm")
    save_file(tensors, tmp_path / "tf_efficientnet_b0_ns-c0e6a31c.safetensors")
    assert load_efficientnet(find_weights(tmp_path / "tf_efficientnet_b0_ns-c0e6a31c.safetensors")).config == TENSORFLOW
    folder = write_folder(tmp_path / "net", tensors, {"architecture": "tf_efficientnet_b0"})
    assert load_efficientnet(find_weights(folder)).config == TENSORFLOW
    folder = write_folder(tmp_path / "other", tensors, {"architecture": "efficientnet_b0"})
    assert load_efficientnet(find_weights(folder)).config == SMALL


def test_torchvision_trains_the_large_ones_with_a_larger_epsilon(tmp_path):
    wide = dataclasses.replace(SMALL, widths=(*SMALL.widths[:-1], 512))
    _, tensors = tensors_of(wide, "torchvision")
    save_file(tensors, tmp_path / "net.safetensors")
    assert load_efficientnet(find_weights(tmp_path / "net.safetensors")).config.norm_eps == 1e-3


@pytest.mark.parametrize("prefix", ["", "efficientnet."])
def test_config_of_transformers_tells_the_rest(tmp_path, prefix):
    config = {
        "model_type": "efficientnet",
        "width_coefficient": 0.5,
        "depth_coefficient": 0.5,
        "hidden_dim": 640,
        "depthwise_padding": [5],
        "batch_norm_eps": 0.01,
    }
    shape = EfficientNetConfig.from_huggingface(config)
    assert shape.widths == (8, 16, 24, 40, 56, 96, 160)
    assert (shape.stem, shape.head, shape.depths) == (16, 640, (1, 1, 1, 2, 2, 2, 1))
    assert (shape.padding, shape.symmetric_blocks, shape.norm_eps) == ("trailing", (5,), 0.01)
    others = ("classifier.weight", "classifier.bias") if prefix else ()
    expected, tensors = tensors_of(shape, "huggingface", prefix=prefix, others=others)
    backbone = load_backbone(str(write_folder(tmp_path / "net", tensors, config)))
    assert backbone.network.config == shape
    assert_equal(backbone.network, expected)


def test_settings_it_does_not_have_are_all_named():
    with pytest.raises(WeightsError) as caught:
        EfficientNetConfig.from_huggingface({"hidden_act": "relu", "strides": [1, 1], "width_coefficient": 0.1})
    for name in ("hidden_act = 'relu'", "strides = [1, 1]", "width_coefficient = 0.1"):
        assert name in str(caught.value)


@pytest.mark.parametrize(("architecture", "known"), [("tf_efficientnet_lite0", True), ("efficientnetv2_s", False)])
def test_timm_repositories_name_the_architecture(tmp_path, architecture, known):
    folder = write_folder(tmp_path / "net", {"conv_stem.weight": np.ones(1)}, {"architecture": architecture})
    assert is_efficientnet(find_weights(folder)) == known


def test_file_that_lacks_a_stage_is_refused(tmp_path):
    _, tensors = tensors_of(SMALL, "timm")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.6")}
    save_file(kept, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match="its blocks form 6 stages; an EfficientNet has 7"):
        load_efficientnet(find_weights(tmp_path / "net.safetensors"))


def test_published_shapes():
    """Parameters of torchvision's and timm's networks without classifier; statistics are not parameters there."""
    published = {"b0": 5_288_548 - 1_281_000, "b4": 19_341_616 - 1_793_000, "lite1": 5_416_680 - 1_281_000}
    for name, expected in published.items():
        _, arrays = module_state.split(abstract_efficientnet(EfficientNetConfig.published(name)))
        counted = [array for path, array in arrays.items() if not path.endswith(("/mean", "/var"))]
        assert sum(int(np.prod(array.shape)) for array in counted) == expected


def test_features_end_at_the_last_stage_of_each_stride():
    network = abstract_efficientnet(SMALL)
    assert network.strides == (2, 4, 8, 16, 16, 32, 32)
    assert network.usual_blocks() == (1, 2, 4)
    images = np.zeros((1, 64, 96, 3))
    maps = jax.eval_shape(lambda network, x: network.maps(x), network, images)
    assert [x.shape for x in maps] == [(1, 16, 24, 16), (1, 8, 12, 24), (1, 4, 6, 40)]
    output, taps = jax.eval_shape(lambda network, x: network(x, (0, 5)), network, images)
    assert (output.shape, taps[0].shape, taps[5].shape) == ((1, 2, 3, 64), (1, 32, 48, 8), (1, 2, 3, 48))
