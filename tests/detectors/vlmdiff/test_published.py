"""A checkpoint as VLMDiff's authors leave it, in miniature: every part arrives, whatever does not fit is named."""

from pathlib import Path

import numpy as np
import pytest

import jaxad
from jaxad.config import VLMDiffConfig
from jaxad.errors import ConfigError, WeightsError
from jaxad.nn import module_state
from tests.detectors.vlmdiff.made_checkpoints import networks_of, state_dict, write
from tests.models.clip.vocabulary import write_tokenizer


@pytest.fixture(scope="module")
def networks():
    return networks_of()


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
