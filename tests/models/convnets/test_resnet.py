import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxad.errors import WeightsError
from jaxad.models.backbone import load_backbone
from jaxad.models.convnets.resnet import LAYERS, ResNetConfig, abstract_resnet, is_resnet, load_resnet
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from tests.models.convnets.made_checkpoints import BASIC, BOTTLENECK, tensors_of, write_folder

HEAD = ("conv1.num_batches_tracked", "fc.weight", "fc.bias")


def huggingface(shape):
    return {
        "model_type": "resnet",
        "embedding_size": shape.stem,
        "hidden_sizes": shape.widths,
        "depths": shape.depths,
        "layer_type": "bottleneck" if shape.bottleneck else "basic",
    }


def assert_equal(network, expected):
    found, arrays = module_state.split(network)[1], module_state.split(expected)[1]
    assert found.keys() == arrays.keys()
    for path in arrays:
        np.testing.assert_array_equal(found[path], arrays[path])


@pytest.mark.parametrize("shape", [BASIC, BOTTLENECK], ids=["basic", "bottleneck"])
def test_a_bare_file_tells_the_shape(tmp_path, shape):
    expected, tensors = tensors_of(shape, "torchvision", others=HEAD)
    save_file(tensors, tmp_path / "net.safetensors")
    backbone = load_backbone(str(tmp_path / "net.safetensors"))
    assert backbone.network.config == shape
    assert_equal(backbone.network, expected)


@pytest.mark.parametrize("prefix", ["", "resnet."])
def test_transformers_files_with_and_without_classifier(tmp_path, prefix):
    others = ("classifier.1.weight", "classifier.1.bias") if prefix else ()
    expected, tensors = tensors_of(BASIC, "huggingface", prefix=prefix, others=others)
    folder = write_folder(tmp_path / "net", tensors, huggingface(BASIC))
    network = load_resnet(find_weights(folder))
    assert network.config == BASIC
    assert_equal(network, expected)


def test_published_shapes():
    """Parameters of torchvision's networks without classifier; statistics are not parameters there."""
    published = {18: 11_689_512 - 513_000, 50: 25_557_032 - 2_049_000}
    for layers, expected in published.items():
        _, arrays = module_state.split(abstract_resnet(ResNetConfig.resnet(layers)))
        counted = [array for path, array in arrays.items() if not path.endswith(("/mean", "/var"))]
        assert sum(int(np.prod(array.shape)) for array in counted) == expected
    assert ResNetConfig.from_huggingface({}) == ResNetConfig.resnet(50) == ResNetConfig()
    assert sum(LAYERS[101]) * 3 + 2 == 101


def test_stages_halve_the_grid_and_deeper_ones_do_not_run():
    shapes = jax.eval_shape(
        lambda network, x: network.taps(x, (0, 2)), abstract_resnet(BASIC), np.zeros((2, 64, 96, 3))
    )
    assert {stage: tap.shape for stage, tap in shapes.items()} == {0: (2, 16, 24, 8), 2: (2, 4, 6, 16)}
    output, taps = jax.eval_shape(lambda network, x: network(x), abstract_resnet(BASIC), np.zeros((1, 64, 64, 3)))
    assert (output.shape, taps) == ((1, 2, 2, 24), {})


def test_settings_it_does_not_have_are_all_named():
    with pytest.raises(WeightsError) as caught:
        ResNetConfig.from_huggingface(
            {"downsample_in_bottleneck": True, "hidden_act": "gelu", "layer_type": "x", "depths": [1, 1]}
        )
    for name in ("downsample_in_bottleneck = True", "hidden_act = 'gelu'", "layer_type = 'x'", "depths"):
        assert name in str(caught.value)


def test_network_of_another_stem_is_refused(tmp_path):
    _, tensors = tensors_of(BASIC, "torchvision")
    tensors["conv1.0.weight"] = tensors.pop("conv1.weight")
    save_file(tensors, tmp_path / "net.safetensors")
    with pytest.raises(WeightsError, match=r"conv1\.weight is missing"):
        load_resnet(find_weights(tmp_path / "net.safetensors"))


@pytest.mark.parametrize(("architecture", "known"), [("resnet50", True), ("resnet50d", False), ("resnetv2_50", False)])
def test_timm_repositories_name_the_architecture(tmp_path, architecture, known):
    folder = write_folder(tmp_path / "net", {"x": np.ones(1)}, {"architecture": architecture})
    assert is_resnet(find_weights(folder)) == known
