import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxad.errors import WeightsError
from jaxad.models.stable_diffusion.autoencoder_kl import (
    Moments,
    abstract_autoencoder,
    load_autoencoder,
    save_autoencoder,
)
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps, infer_autoencoder_config
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from tests.models.stable_diffusion.made_checkpoints import (
    AUTOENCODER,
    UNET,
    randomized,
    write_folder,
    write_single_file,
)

LDM = AutoencoderConfig(block_out_channels=(32, 64, 64), layers_per_block=2)


@pytest.fixture(scope="module")
def tiny():
    return randomized(abstract_autoencoder(AUTOENCODER))


def equal(first, second):
    first, second = (module_state.split(module)[1] for module in (first, second))
    return first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


def test_shapes_and_types():
    tiny = randomized(abstract_autoencoder(AUTOENCODER, jnp.bfloat16))
    images = np.zeros((2, 6, 8, 3), np.float32)
    moments = jax.eval_shape(tiny.encode, images)
    assert moments.mean.shape == moments.logvar.shape == (2, 3, 4, 4)
    decoded = jax.eval_shape(tiny.decode, moments.mean)
    assert decoded.shape == images.shape
    assert moments.mean.dtype == moments.logvar.dtype == decoded.dtype == jnp.float32


def test_remat_recomputes_every_block(tiny):
    _, arrays = module_state.split(tiny)
    graphdef, _ = module_state.split(abstract_autoencoder(AUTOENCODER, remat=True))
    network = module_state.merge(graphdef, arrays)
    for call, shape in ((network.encode, (1, 4, 4, 3)), (network.decode, (1, 2, 2, 4))):
        program = str(jax.make_jaxpr(call)(jnp.zeros(shape)))
        assert len(re.findall(r"\b(?:checkpoint|remat2?)\[", program)) == 3


def test_moments_sample_and_kl():
    mean = jnp.full((2, 64, 64, 4), 3.0).at[1].set(0.0)
    moments = Moments(mean, jnp.full(mean.shape, jnp.log(4.0)))
    sample = moments.sample(jax.random.key(0))
    np.testing.assert_allclose(sample.mean((1, 2, 3)), [3, 0], atol=0.06)
    np.testing.assert_allclose(sample.std((1, 2, 3)), 2, atol=0.04)
    expected = mean[0].size * 0.5 * np.array([9 + 4 - 1 - np.log(4), 4 - 1 - np.log(4)])
    np.testing.assert_allclose(moments.kl(), expected, rtol=1e-5)


def test_sample_of_an_image_depends_on_its_key_alone():
    moments = Moments(jnp.zeros((3, 2, 2, 4)), jnp.zeros((3, 2, 2, 4)))
    keys = jax.random.split(jax.random.key(1), 3)
    together = moments.sample(keys)
    alone = Moments(moments.mean[:1], moments.logvar[:1]).sample(keys[2:])
    np.testing.assert_array_equal(together[2:], alone)
    assert len({float(value) for value in together[:, 0, 0, 0]}) == 3


def test_logvar_is_clamped(tiny):
    graphdef, arrays = module_state.split(tiny)
    bias = jnp.asarray([0.0] * 4 + [100.0, 100.0, -100.0, -100.0])
    arrays = arrays | {"quant_conv/kernel": jnp.zeros((8, 8)), "quant_conv/bias": bias}
    moments = jax.jit(lambda arrays, x: module_state.merge(graphdef, arrays).encode(x))(arrays, np.zeros((1, 2, 2, 3)))
    np.testing.assert_array_equal(moments.logvar[0, 0, 0], [20, 20, -30, -30])


def test_parameter_count():
    arrays = module_state.split(abstract_autoencoder(AutoencoderConfig()))[1]
    assert sum(int(np.prod(array.shape)) for array in arrays.values()) == 83_653_863


def test_config_missing_fields_have_the_defaults_of_diffusers():
    config = AutoencoderConfig.from_diffusers({"_class_name": "AutoencoderKL"})
    assert config == AutoencoderConfig(block_out_channels=(64,), layers_per_block=1)
    assert config.scaling_factor == 0.18215
    assert AutoencoderConfig.from_diffusers(json.loads(json.dumps(LDM.to_diffusers()))) == LDM


def test_impossible_config_lists_everything():
    config = {"_class_name": "AutoencoderTiny", "shift_factor": 0.1, "use_quant_conv": False, "norm_num_groups": 24}
    with pytest.raises(WeightsError) as caught:
        AutoencoderConfig.from_diffusers({**config, "down_block_types": ["AttnDownEncoderBlock2D"] * 2})
    for problem in (
        "_class_name = 'AutoencoderTiny'",
        "shift_factor = 0.1",
        "use_quant_conv = False",
        "norm_num_groups = 24",
        "AttnDownEncoderBlock2D",
        "one for each",
    ):
        assert problem in str(caught.value)


def test_saved_and_loaded_again(tmp_path, tiny):
    save_autoencoder(tiny, tmp_path / "own")
    assert equal(load_autoencoder(tmp_path / "own"), tiny)
    write_folder(tmp_path / "pipeline")
    assert equal(load_autoencoder(tmp_path / "pipeline"), tiny)


def test_old_names_of_the_attention(tmp_path, tiny):
    save_autoencoder(tiny, tmp_path)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = {}
    for name, tensor in find_weights(tmp_path).tensors.items():
        for new, old in names.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        renamed[name] = np.array(tensor)
    safetensors.numpy.save_file(renamed, tmp_path / "diffusion_pytorch_model.safetensors")
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in find_weights(tmp_path).tensors
    assert equal(load_autoencoder(tmp_path), tiny)


def test_single_file_and_kl_f8_file(tmp_path):
    network = randomized(abstract_autoencoder(LDM))
    write_single_file(tmp_path / "sd.safetensors", UNET, LDM)
    assert equal(load_autoencoder(tmp_path / "sd.safetensors"), network)

    tensors = to_torch(network, autoencoder_key_maps(LDM)["ldm"])
    assert tensors["decoder.mid.attn_1.q.weight"].shape == (64, 64, 1, 1)
    tensors["loss.logvar"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "kl-f8.safetensors")
    weights = find_weights(tmp_path / "kl-f8.safetensors")
    assert infer_autoencoder_config(weights) == LDM
    assert equal(load_autoencoder(weights), network)


def test_another_network_is_named(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(WeightsError, match="_class_name = 'UNet2DConditionModel': must be 'AutoencoderKL'"):
        load_autoencoder(tmp_path / "unet")
