"""Layouts of Vision Transformers, each made here by renaming the tensors of a small Hugging Face checkpoint."""

import re

import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.vit.checkpoints import HUGGINGFACE_DINOV2, HUGGINGFACE_VIT, ORIGINAL, TIMM, TIMM_REGISTERS, recognize
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import abstract_vit, load_vit
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.nn import module_state
from tests.models.vit.made_checkpoints import write_dinov2

HUB_NAMES = (
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.", ""),
    (r"^encoder\.layer\.", "blocks."),
    (r"attention\.output\.dense", "attn.proj"),
    (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
    (r"weights_in", "w12"),
    (r"weights_out", "w3"),
    (r"^layernorm", "norm"),
)


def hub_layout(tensors):
    """Tensors of Hugging Face's DINOv2 as the authors' hub names them, query, key and value in one."""
    renamed, joint = {}, {}
    for name, tensor in tensors.items():
        for pattern, new in HUB_NAMES:
            name = re.sub(pattern, new, name)
        if part := re.search(r"attention\.attention\.(query|key|value)", name):
            joint.setdefault(name.replace(part[0], "attn.qkv"), {})[part[1]] = tensor
        else:
            renamed[name] = tensor
    return renamed | {n: np.concatenate([parts[p] for p in ("query", "key", "value")]) for n, parts in joint.items()}


def parameters(weights):
    return module_state.split(load_vit(weights))[1]


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(actual[path], expected[path], err_msg=path)


@pytest.fixture(scope="module", params=[{}, {"registers": 4}, {"swiglu": True}], ids=["plain", "registers", "swiglu"])
def huggingface(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dinov2")
    write_dinov2(folder, **request.param)
    return find_weights(folder)


def renamed(weights, tensors):
    return Weights("renamed", weights.config, (), tensors)


def test_hub_names(huggingface):
    hub = hub_layout(huggingface.tensors)
    assert_same(parameters(renamed(huggingface, hub)), parameters(huggingface))


def test_hub_names_in_chunks(huggingface):
    chunk_of = {"0": "0.0", "1": "0.1", "2": "1.2"}
    hub = {
        re.sub(r"^blocks\.(\d)", lambda match: f"blocks.{chunk_of[match[1]]}", name): tensor
        for name, tensor in hub_layout(huggingface.tensors).items()
    }
    assert any(name.startswith("blocks.1.2.") for name in hub)
    assert_same(parameters(renamed(huggingface, hub)), parameters(huggingface))


def test_chunks_that_count_for_themselves_are_refused(huggingface):
    hub = {re.sub(r"^blocks\.(\d)", r"blocks.\1.0", n): tensor for n, tensor in hub_layout(huggingface.tensors).items()}
    with pytest.raises(WeightsError, match="several chunks hold a block of the same number"):
        load_vit(renamed(huggingface, hub))


@pytest.mark.parametrize("prefix", ["dinov2.", "module.", "model.backbone."])
def test_prefix_and_classifier(huggingface, prefix):
    tensors = {prefix + name: tensor for name, tensor in huggingface.tensors.items()}
    tensors["classifier.weight"] = np.zeros((5, 48), np.float32)
    assert_same(parameters(renamed(huggingface, tensors)), parameters(huggingface))
    with pytest.raises(WeightsError, match=f"below '{prefix}'.*\n  neck.weight: in the file, but not used"):
        load_vit(renamed(huggingface, tensors | {"neck.weight": np.zeros(3)}))


def test_several_networks_or_none_are_refused(huggingface):
    both = {f"{side}.{name}": tensor for name, tensor in huggingface.tensors.items() for side in ("left", "right")}
    with pytest.raises(WeightsError, match=r"several networks, below left., right."):
        load_vit(renamed(huggingface, both))
    with pytest.raises(WeightsError, match="no tensor cls_token"):
        load_vit(renamed(huggingface, {"conv1.weight": np.zeros((8, 3, 7, 7))}))


SHAPE = {"width": 128, "depth": 2, "heads": 2, "patch": 7, "image_size": 35, "hidden": 192}
PLAIN = {**SHAPE, "layer_scale": False}
CASES = {
    "Hugging Face DINOv2": (HUGGINGFACE_DINOV2, ViTConfig(**SHAPE)),
    "Hugging Face registers": (HUGGINGFACE_DINOV2, ViTConfig(**SHAPE, registers=3, interpolation="antialias")),
    "Hugging Face ViT": (HUGGINGFACE_VIT, ViTConfig(**PLAIN, norm_eps=1e-12)),
    "DINO": (ORIGINAL, ViTConfig(**PLAIN, interpolation="dinomaly")),
    "DINOv2 hub": (ORIGINAL, ViTConfig(**SHAPE, swiglu=True, interpolation="dinomaly")),
    "DINOv2 hub registers": (ORIGINAL, ViTConfig(**SHAPE, registers=4, interpolation="antialias")),
    "timm gated": (TIMM, ViTConfig(**SHAPE, swiglu=True, interpolation="antialias")),
    "timm registers": (TIMM_REGISTERS, ViTConfig(**SHAPE, registers=4, interpolation="antialias")),
    "no biases": (ORIGINAL, ViTConfig(**PLAIN, qkv_bias=False, interpolation="dinomaly")),
}


@pytest.fixture(scope="module")
def tensors_of():
    """Tensors of a network of a shape in a layout, numbered so that each value differs from all others around it."""

    def make(key_map, config):
        graphdef, abstract = module_state.split(abstract_vit(config))
        arrays = {
            path: np.arange(number, number + parameter.size, dtype=np.float32).reshape(parameter.shape)
            for number, (path, parameter) in enumerate(abstract.items())
        }
        if key_map is TIMM_REGISTERS:
            arrays["positions"][:, 0] = 0
        return to_torch(module_state.merge(graphdef, arrays), key_map), arrays

    return make


@pytest.mark.parametrize("case", CASES)
def test_shape_is_read_off_the_tensors(tensors_of, case):
    key_map, config = CASES[case]
    tensors, arrays = tensors_of(key_map, config)
    checkpoint = recognize(Weights(case, {}, (), tensors))
    assert checkpoint.config == config
    assert checkpoint.key_map is key_map
    assert_same(parameters(Weights(case, {}, (), tensors)), arrays)


def test_timm_is_known_by_its_config_or_its_classifier(tensors_of):
    tensors, _ = tensors_of(*CASES["DINO"])
    for config, head in (({"architecture": "vit_small_patch8_224"}, {}), ({}, {"head.weight": np.zeros((5, 128))})):
        checkpoint = recognize(Weights("timm", config, (), {**tensors, **head}))
        assert checkpoint.config == ViTConfig(**PLAIN, interpolation="antialias")


@pytest.mark.parametrize(
    ("name", "shape", "problem"),
    [
        ("pos_embed", (1, 27, 128), "no usable tensor tells image_size"),
        ("patch_embed.proj.weight", (128, 3, 7, 8), "image_size; no usable tensor tells patch; .* width"),
        ("patch_embed.proj.weight", (96, 3, 7, 7), "width 96 is no multiple of 64"),
        ("blocks.0.mlp.fc2.weight", (128,), "no usable tensor tells hidden"),
    ],
)
def test_shape_that_cannot_be_read_off(tensors_of, name, shape, problem):
    tensors, _ = tensors_of(*CASES["DINO"])
    with pytest.raises(WeightsError, match=f"cannot be read off.*{problem}.*Add config.json"):
        load_vit(Weights("odd", {}, (), {**tensors, name: np.zeros(shape)}))


def test_config_of_another_network_is_named(huggingface):
    vit = {**huggingface.config, "model_type": "vit"}
    with pytest.raises(WeightsError, match="model_type = 'vit', but the tensors are named as in Hugging Face DINOv2"):
        load_vit(Weights("swapped", vit, (), huggingface.tensors))
    larger = {**huggingface.config, "hidden_size": 48, "num_hidden_layers": 4}
    with pytest.raises(
        WeightsError, match=r"config\.json is that of another network: .*depth 4, not 3.*width 48, not 24"
    ):
        load_vit(Weights("swapped", larger, (), huggingface.tensors))
    with pytest.raises(WeightsError, match="model_type = None"):
        load_vit(Weights("swapped", {"hidden_size": 24}, (), huggingface.tensors))


def test_missing_and_foreign_tensors_are_named(huggingface):
    tensors = dict(huggingface.tensors)
    del tensors["encoder.layer.1.norm2.bias"]
    with pytest.raises(WeightsError) as caught:
        load_vit(renamed(huggingface, tensors | {"encoder.layer.1.norm3.bias": np.zeros(24)}))
    assert "encoder.layer.1.norm2.bias: missing" in str(caught.value)
    assert "encoder.layer.1.norm3.bias: in the file, but not used" in str(caught.value)
    assert "another network" not in str(caught.value)
