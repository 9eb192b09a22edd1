"""A checkpoint as VLMDiff's authors leave it, in miniature: every part arrives, whatever does not fit is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jaxad
from jaxad.config import VLMDiffConfig
from jaxad.detectors.vlmdiff.sgn import abstract_sgn
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.clip.checkpoints import TEXT_LAYOUTS
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps, unet_key_map
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state
from tests.models.clip.vocabulary import write_tokenizer
from tests.models.stable_diffusion.made_checkpoints import randomized
from tests.models.weights.torch_files import tensor_of, write_torch

UNET = UNetConfig(
    block_out_channels=(32, 64),
    layers_per_block=1,
    down_attention=(True, False),
    up_attention=(False, True),
    heads=(8, 8),
    cross_attention_dim=64,
)
VAE = AutoencoderConfig(block_out_channels=(32, 64), layers_per_block=1)
TEXT = TextConfig(64, depth=1, heads=1, hidden=128, vocabulary=526, projection=None, activation="quick_gelu")


def state_dict(networks):
    """The tensors by the names that they have in the authors' code."""
    unet, vae, text = networks["unet"], networks["autoencoder"], networks["text"]
    tensors = {f"model.diffusion_model.{n}": x for n, x in to_torch(unet, unet_key_map(UNET, ldm=True)).items()}
    maps = autoencoder_key_maps(VAE)["ldm"], TEXT_LAYOUTS["transformers, text_model"]
    tensors |= {f"first_stage_model.{name}": x for name, x in to_torch(vae, maps[0]).items()}
    tensors |= {f"cond_stage_model.transformer.{name}": x for name, x in to_torch(text, maps[1]).items()}
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    tensors["betas"] = np.linspace(0, 1, 1000, dtype=np.float32)
    sgn: Any = networks["sgn"]
    trunk = [row for row in unet_key_map(UNET, ldm=True) if not row[1].startswith(("output_blocks", "out."))]
    tensors |= {f"control_model.{name}": x for name, x in to_torch(sgn.trunk, trunk).items()}
    linears = {f"zero_convs.{index}.0": layer for index, layer in enumerate(sgn.zero_convs)}
    linears["middle_block_out.0"] = sgn.middle_zero_conv
    for name, layer in linears.items():
        tensors[f"control_model.{name}.weight"] = np.asarray(layer.kernel[...]).T[:, :, None, None]
        tensors[f"control_model.{name}.bias"] = np.asarray(layer.bias[...])
    hint = {"0": sgn.hint.convs[0], "2": sgn.hint.convs[1], "4": sgn.hint.convs[2], "6": sgn.hint.zero_conv}
    for index, layer in hint.items():
        tensors[f"control_model.input_hint_block.{index}.weight"] = oihw(layer)
        tensors[f"control_model.input_hint_block.{index}.bias"] = np.asarray(layer.bias[...])
    # The second digit is the output that is changed, the first the one above that changes it.
    for name, (target, source) in {"11": (0, 0), "21": (0, 1), "12": (1, 0), "22": (1, 1)}.items():
        tensors[f"control_model.down{name}.0.weight"] = oihw(sgn.fusion.convs[target][source])
    return tensors


def oihw(layer):
    return np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)


def write(file, tensors):
    """As Lightning saves a training."""
    content = {name: tensor_of(np.ascontiguousarray(array)) for name, array in tensors.items()}
    write_torch(file, {"epoch": 299, "global_step": 22682, "optimizer_states": [], "state_dict": content})
    return file


@pytest.fixture(scope="module")
def networks():
    return {
        "unet": randomized(abstract_unet(UNET), 1),
        "autoencoder": randomized(abstract_autoencoder(VAE), 2),
        "text": randomized(abstract_text_tower(TEXT), 3),
        "sgn": randomized(abstract_sgn(UNET, 2), 4),
    }


@pytest.fixture(scope="module")
def checkpoint(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    write_tokenizer(folder / "tokenizer")
    return write(folder / "epoch=299-step=22682.ckpt", state_dict(networks))


def config(file: Path, **changes):
    settings = {"backbone": "random:32x2x8", "image_size": 32, "tokenizer": str(file.parent / "tokenizer")}
    return VLMDiffConfig(**{**settings, "remat": False, **changes})


def assert_equal(model, networks):
    """The same shapes and arrays of every network, so that whatever is computed from them is the same."""
    for name, network in networks.items():
        found, expected = getattr(model, name), module_state.split(network)[1]
        arrays = module_state.split(found)[1]
        assert shape_of(found) == shape_of(network)
        assert arrays.keys() == expected.keys()
        assert [path for path in arrays if not np.array_equal(arrays[path], expected[path])] == []


def shape_of(network):
    return network.trunk.config if hasattr(network, "trunk") else network.config


def test_finished_detector_is_that_of_the_file(checkpoint, networks, parts, tmp_path):
    model = jaxad.VLMDiff.from_published(checkpoint, config(checkpoint))
    assert_equal(model, networks)
    assert model.autoencoder.config.scaling_factor == 0.18215
    # Its autoencoder was finetuned on ImageNet-normalized images.
    assert not model._symmetric
    run = jaxad.fit(model, parts.train, workdir=tmp_path / "run")
    restored = jaxad.restore(tmp_path / "run")
    assert_equal(restored.detector, networks)
    assert restored.meta["train"] is None
    assert restored.detector.categories == run.model.categories == ("disc", "tile")
    assert restored.detector.config.checkpoint == str(checkpoint)


def test_what_does_not_fit_is_named(checkpoint, networks):
    tensors = state_dict(networks)
    lacking = {name: x for name, x in tensors.items() if name != "control_model.down12.0.weight"}
    lacking["control_model.down14.0.weight"] = tensors["control_model.down12.0.weight"]
    file = write(checkpoint.with_name("lacking.ckpt"), lacking)
    with pytest.raises(WeightsError) as caught:
        jaxad.VLMDiff.from_published(file, config(checkpoint))
    assert "down12.0.weight: missing, needed for fusion/convs/1/0" in str(caught.value)
    assert "down14.0.weight: in the file, but not used" in str(caught.value)
    plain = {name: x for name, x in tensors.items() if not name.startswith(("control_model.", "first_stage"))}
    file = write(checkpoint.with_name("plain.ckpt"), plain | {"adapter.weight": np.ones(2, np.float32)})
    with pytest.raises(WeightsError) as caught:
        jaxad.VLMDiff.from_published(file, config(checkpoint))
    for problem in ("no tensors control_model.*", "no tensors first_stage_model.*", "adapter.weight: belongs to none"):
        assert problem in str(caught.value)


def test_settings_that_contradict_a_checkpoint_are_listed(checkpoint):
    with pytest.raises(ConfigError, match=r"trained = True: needs checkpoint"):
        config(checkpoint, trained=True).check()
    with pytest.raises(ConfigError, match=r"autoencoder = 'kl-f8': checkpoint = .* has its own"):
        config(checkpoint, autoencoder="kl-f8", checkpoint=str(checkpoint)).check()
