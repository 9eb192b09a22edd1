"""A backbone family of another package: registered, loaded strictly, used and restored without an edit of jaxad."""

from __future__ import annotations

import json
from importlib import metadata

import chex
import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxad import registry
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.backbone import backbone_from_config, load_backbone
from jaxad.models.family import families, family_of, recognize
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen
from tests.models import stripes

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 16, 24, 3), dtype=np.uint8)


@pytest.fixture
def tensors():
    generator = np.random.default_rng(1)
    shapes = {"stem.w": (6, 3, 8, 8), "mixers.0.w": (6, 6), "mixers.1.w": (6, 6)}
    return {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def folder(tmp_path, tensors):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "stripes"}))
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def test_loads_from_a_folder_and_gives_features(folder, tensors):
    backbone = load_backbone(str(folder))
    assert isinstance(backbone.network, stripes.StripesNetwork)
    assert (backbone.depth, backbone.patch, backbone.grid((16, 24))) == (2, 8, (2, 3))
    assert backbone.select_blocks() == (1,)
    assert backbone.width((0, 1)) == 12
    features = backbone.features(IMAGES, (0, 1))
    patch = ((IMAGES / 255 - 0.5) / 0.25)[1, 8:, :8].transpose(2, 0, 1)
    first = np.maximum(np.einsum("oihw,ihw->o", tensors["stem.w"], patch) @ tensors["mixers.0.w"].T, 0)
    second = np.maximum(first @ tensors["mixers.1.w"].T, 0)
    chex.assert_shape(features, (2, 6, 12))
    np.testing.assert_allclose(features[1, 3], np.concatenate([first, second]), rtol=1e-4, atol=1e-3)


def test_loading_is_strict(folder, tensors):
    save_file({**tensors, "neck.w": np.zeros(3, np.float32)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"neck\.w"):
        load_backbone(str(folder))


def test_is_restored_from_its_config(folder):
    backbone = load_backbone(str(folder), dtype="bfloat16")
    values = json.loads(json.dumps(backbone.config_json()))
    assert values["family"] == "stripes"
    empty, arrays = backbone_from_config(values), module_state.split(backbone, Frozen)[1]
    graphdef, wanted = module_state.split(empty)
    assert {path: array.shape for path, array in wanted.items()} == {p: array.shape for p, array in arrays.items()}
    restored = module_state.merge(graphdef, arrays)
    chex.assert_trees_all_equal(restored.features(IMAGES, (1,)), backbone.features(IMAGES, (1,)))
    assert restored.config_json() == values


def test_has_untrained_networks():
    backbone = load_backbone("random:stripes-3")
    assert (backbone.depth, backbone.id) == (3, "random:stripes-3")
    chex.assert_trees_all_equal(
        backbone.features(IMAGES, (2,)), load_backbone("random:stripes-3").features(IMAGES, (2,))
    )
    with pytest.raises(ConfigError, match="random:stripes-DEPTH"):
        load_backbone("random:stripes")


def test_goes_before_a_more_general_family(folder, tensors):
    """What both recognize belongs to the one that was added."""
    save_file({**tensors, "cls_token": np.zeros((1, 1, 6), np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    weights = find_weights(folder)
    assert families.get("vit").recognizes(weights)
    assert recognize(weights) is stripes.Stripes


def test_is_found_by_its_entry_point(folder, monkeypatch):
    monkeypatch.delitem(families._entries, "stripes")
    with pytest.raises(WeightsError, match="stripes"):
        load_backbone(str(folder))
    point = metadata.EntryPoint("stripes", "tests.models.stripes:Stripes", "jaxad.backbones")
    monkeypatch.setattr(registry, "_points", lambda group, places: [point] if group == "jaxad.backbones" else [])
    assert isinstance(load_backbone(str(folder)).network, stripes.StripesNetwork)


def test_families_of_jaxad_are_the_modules_of_their_package():
    assert set(families.names()) >= {"vit", "resnet", "efficientnet"}
    for name, family in families.entries().items():
        assert family.name == name
        assert family_of(family.config()) is family
        assert family.random("no such network") is None


RANDOM = {"vit": "32x2x8", "resnet": "resnet18", "efficientnet": "efficientnet_lite0", "stripes": "stripes-2"}


@pytest.mark.parametrize(("name", "random"), RANDOM.items(), ids=RANDOM)
def test_networks_keep_the_contract(name, random):
    """Depth, blocks, widths and grids agree with the features."""
    family = families.get(name)
    shape = family.random(random)
    network = family.abstract(shape, np.dtype(np.float32))
    assert network.config == shape
    blocks = network.usual_blocks()
    assert set(blocks) | set(network.usual_blocks("middle")) <= set(range(network.depth))
    side = 4 * network.patch
    images = jax.ShapeDtypeStruct((1, side, 2 * side, 3), np.float32)
    graphdef, arrays = module_state.split(network)

    def run(arrays, images):
        merged = module_state.merge(graphdef, arrays)
        return merged.features(images, blocks), merged.maps(images)

    features, maps = jax.eval_shape(run, arrays, images)
    chex.assert_shape(features, (1, 32, network.features_width(blocks)))
    chex.assert_type([features, *maps], np.float32)
    chex.assert_rank(maps, 4)
