"""Detectors on a convolutional backbone, from its file to the report."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxad
from jaxad.errors import ConfigError
from jaxad.models.convnets.resnet import ResNet
from jaxad.nn.attention import attention_heads
from jaxad.testing import toy_model, toy_training
from tests.models.convnets.made_checkpoints import BASIC, tensors_of

CHANNELS = sum(BASIC.widths[:3])
"""As many as those of the toy's backbone, so that the training step is compiled once."""


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A file as torchvision writes it."""
    file = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(tensors_of(BASIC, "torchvision", others=("fc.weight", "fc.bias"))[1], file)
    return str(file)


def fitted(model, parts, workdir):
    """What was trained, and what its checkpoint gives back."""
    run = jaxad.fit(model, parts.train, toy_training(steps=2), workdir=workdir, holdout=parts.holdout)
    restored = jaxad.restore(workdir)
    assert isinstance(restored.detector.backbone.network, ResNet)
    assert restored.detector.backbone.config_json() == model.backbone.config_json()
    assert (restored.detector.channels, restored.detector.grid) == (CHANNELS, (4, 4))
    files = [record.file for record in parts.test.records]
    for first, second in zip(*(jaxad.predict(model, files) for model in (run.model, restored.detector)), strict=True):
        np.testing.assert_array_equal(first.map, second.map)
    return restored.detector


def test_dpdiff_from_file_to_report(parts, resnet, tmp_path):
    model = toy_model(backbone=resnet, image_size=64)
    assert model.channel_mean[...].shape == (CHANNELS,)
    assert model.denoiser.width == CHANNELS
    detector = fitted(model, parts, tmp_path / "run")
    jaxad.write_report(tmp_path / "report", jaxad.evaluate(detector, parts.test))
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["config"]["model"]["backbone"] == resnet
    assert 0 <= written["mean"]["image_auroc"] <= 1


def test_patch_bank_from_file_to_prediction(parts, resnet, tmp_path):
    config = jaxad.PatchBankConfig.preset("small", backbone=resnet, image_size=64, bank_size=50)
    detector = fitted(jaxad.PatchBank.create(config), parts, tmp_path / "run")
    assert detector.blocks == (0, 1, 2)
    assert detector.banks[...].shape == (1, 50, CHANNELS)


def test_features_of_other_weights_or_blocks_have_another_identity(resnet):
    def identity(**changes):
        return jaxad.PatchBank.create(jaxad.PatchBankConfig(image_size=64, **changes)).inputs.identity

    kinds = [identity(backbone=resnet), identity(backbone=resnet, blocks=(1,)), identity(backbone="random:32x2x16")]
    assert len({repr(kind) for kind in kinds}) == 3
    assert repr(kinds[0]) == repr(identity(backbone=resnet, blocks=(0, 1, 2)))


def test_heads_follow_the_width_unless_given(resnet):
    settings = {"backbone": resnet, "image_size": 64, "heads": None, "prototype_heads": None, "width": 192}
    model = jax.eval_shape(lambda: toy_model(**settings))
    assert (model.denoiser.blocks[0].self_attention.heads, model.denoiser.width) == (3, 192)


def test_size_and_stages_that_the_backbone_does_not_have_are_named(resnet):
    with pytest.raises(ConfigError, match="56 x 56 pixels: both sides must be multiples of 16"):
        toy_model(backbone=resnet)
    with pytest.raises(ConfigError, match=r"has blocks 0 to 3, not \[4\]"):
        toy_model(backbone=resnet, image_size=64, blocks=(2, 4))


@pytest.mark.parametrize(
    ("width", "heads"), [(768, 12), (384, 6), (1024, 16), (448, 7), (1792, 28), (176, 2), (248, 2), (312, 4), (48, 1)]
)
def test_heads_have_64_channels_or_more(width, heads):
    """ViT-B, S and L, ResNet-18 and 50, EfficientNet B0, B4 and B6, and one too narrow for two."""
    assert attention_heads(width) == heads
