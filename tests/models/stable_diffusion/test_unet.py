import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.stable_diffusion.blocks import double
from jaxad.models.stable_diffusion.checkpoints import find_part, find_stable_diffusion, infer_unet_config, is_whole
from jaxad.models.stable_diffusion.config import UNetConfig
from jaxad.models.stable_diffusion.unet import UNetEncoder, abstract_unet, load_unet, save_unet
from jaxad.models.weights.conversion import convert
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from tests.models.stable_diffusion.made_checkpoints import (
    AUTOENCODER,
    UNET,
    randomized,
    write_folder,
    write_single_file,
)

LDM = UNetConfig(
    in_channels=9,
    block_out_channels=(64, 128),
    layers_per_block=1,
    down_attention=(True, False),
    up_attention=(False, True),
    heads=(1, 2),
    cross_attention_dim=12,
    use_linear_projection=True,
)


@pytest.fixture(scope="module")
def tiny():
    return randomized(abstract_unet(UNET))


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(1)
    return generator.normal(size=(2, 5, 6, 4)), np.array([1, 801]), generator.normal(size=(2, 7, 12))


PART = ["up_blocks.0", "up_blocks.0.layers"]


@pytest.fixture(scope="module")
def outputs(tiny, inputs):
    """All that the network gives, as one compiled program."""
    graphdef, arrays = module_state.split(tiny)

    def run(arrays, latents, timesteps, context):
        unet = module_state.merge(graphdef, arrays)
        sites = UNET.attention_sites
        temb = unet.time_embedding(timesteps)
        h, skips = unet.encode(latents, temb, context)
        hinted = unet.encode(latents, temb, context, hint=jnp.ones((2, 5, 6, 8)))[1][0]
        return {
            "whole": unet(latents, timesteps, context, taps=unet.stages, attention_sites=sites, heads="each"),
            "halves": unet.decode(unet.middle(h, temb, context), skips, temb, context),
            "part": unet(latents, timesteps, context, taps=PART, attention_sites=sites[:2], output=False),
            "first skips": (skips[0], hinted),
        }

    return jax.jit(run)(arrays, *inputs)


def count(module):
    return sum(int(np.prod(array.shape)) for array in module_state.split(module)[1].values())


def equal(first, second):
    first, second = (module_state.split(module)[1] for module in (first, second))
    return first.keys() == second.keys() and all(np.array_equal(first[path], second[path]) for path in first)


def test_halves_make_the_whole_whatever_is_asked_for(outputs):
    noise = outputs["whole"][0]
    assert noise.shape == (2, 5, 6, 4)
    assert noise.dtype == jnp.float32
    np.testing.assert_allclose(outputs["halves"], noise, rtol=0, atol=1e-5)


def test_features_are_outputs_of_stages(outputs):
    shapes = {name: features.shape for name, features in outputs["whole"][1].items()}
    assert shapes == {
        "down_blocks.0": (2, 3, 3, 8),
        "down_blocks.1": (2, 3, 3, 16),
        "mid_block": (2, 3, 3, 16),
        "up_blocks.0": (2, 5, 6, 16),
        "up_blocks.1": (2, 5, 6, 8),
    }


def test_without_output_only_what_is_asked_for(outputs):
    noise, features, _ = outputs["part"]
    assert noise is None
    assert list(features) == PART
    np.testing.assert_allclose(features["up_blocks.0"], outputs["whole"][1]["up_blocks.0"], rtol=0, atol=1e-5)


def test_layers_are_tapped_before_their_upsampler(tiny, outputs):
    features = outputs["part"][1]
    up = tiny.up_blocks[0].upsampler(double(features["up_blocks.0.layers"])[:, :5, :6])
    np.testing.assert_allclose(up, features["up_blocks.0"], rtol=0, atol=1e-5)


def test_attention_probabilities(outputs):
    each, mean = outputs["whole"][2], outputs["part"][2]
    assert tuple(each) == UNET.attention_sites
    assert tuple(mean) == UNET.attention_sites[:2]
    assert each["down_blocks.0.attentions.0"].shape == (2, 2, 5, 6, 7)
    assert each["mid_block.attentions.0"].shape == (2, 4, 3, 3, 7)
    for site in each:
        np.testing.assert_allclose(each[site].sum(-1), 1, rtol=1e-5)
    for site in mean:
        np.testing.assert_allclose(mean[site], each[site].mean(1), rtol=1e-4)


def test_hint_joins_after_the_first_convolution(outputs):
    plain, hinted = outputs["first skips"]
    np.testing.assert_allclose(hinted, plain + 1, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("request_", "stages"),
    [
        ({"taps": ["up_blocks.0.layers"]}, 4),
        ({"attention_sites": ["down_blocks.0.attentions.0"]}, 1),
        ({"taps": ["down_blocks.1"], "attention_sites": ["mid_block.attentions.0"]}, 3),
    ],
)
def test_stages_behind_the_deepest_request_do_not_run(tiny, inputs, request_, stages):
    ran, stage_call = [], {type(stage): type(stage).__call__ for stage in tiny.stages.values()}
    with pytest.MonkeyPatch.context() as patch:
        for kind, call in stage_call.items():
            patch.setattr(kind, "__call__", lambda self, *a, call=call: (ran.append(self), call(self, *a))[1])
        jax.eval_shape(lambda *arrays: tiny(*arrays, **request_, output=False), *inputs)
    assert ran == list(tiny.stages.values())[:stages]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"taps": ["up_blocks.2"]}, r"taps \['up_blocks.2'\].*up_blocks.1"),
        ({"attention_sites": ["up_blocks.0.attentions.0"]}, r"up_blocks.0.attentions.0.*up_blocks.1.attentions.1"),
        ({"output": False}, "name one or more taps"),
    ],
)
def test_requests_that_cannot_be_met_are_named(tiny, inputs, request_, message):
    with pytest.raises(ConfigError, match=message):
        tiny(*inputs, **request_)


def test_encoder_alone_has_the_same_parameters(tiny):
    whole, encoder = module_state.split(tiny)[1], abstract_unet(UNET, encoder_only=True)
    assert type(encoder) is UNetEncoder
    arrays = module_state.split(encoder)[1]
    decoder = ("up_blocks", "conv_norm_out", "conv_out")
    assert set(arrays) == {path for path in whole if not path.startswith(decoder)}
    assert {path: array.shape for path, array in arrays.items()} == {path: whole[path].shape for path in arrays}


def test_remat_recomputes_every_layer(tiny):
    _, arrays = module_state.split(tiny)
    unet = module_state.merge(module_state.split(abstract_unet(UNET, remat=True))[0], arrays)
    program = str(jax.make_jaxpr(unet)(jnp.zeros((1, 4, 4, 4)), jnp.zeros(1), jnp.zeros((1, 3, 12))))
    layers = sum(len(stage.resnets) for stage in unet.stages.values())
    assert len(re.findall(r"\b(?:checkpoint|remat2?)\[", program)) == layers


def test_bfloat16_computes_in_bfloat16_and_returns_float32(inputs):
    unet = randomized(abstract_unet(UNET, jnp.bfloat16))
    noise, features, maps = jax.eval_shape(
        lambda *arrays: unet(*arrays, taps=["up_blocks.0"], attention_sites=["mid_block.attentions.0"]), *inputs
    )
    assert noise.dtype == jnp.float32
    assert features["up_blocks.0"].dtype == jnp.bfloat16
    assert maps["mid_block.attentions.0"].dtype == jnp.float32
    assert {array.dtype for array in module_state.split(unet)[1].values()} == {np.dtype("float32")}


def test_parameter_count():
    assert count(abstract_unet(UNetConfig.sd2(inpainting=True))) == 865_925_124


def test_attention_sites_of_stable_diffusion_2():
    """16 sites, of which CLIPFusion uses all but the middle one."""
    sites = UNetConfig.sd2().attention_sites
    assert len(sites) == 16
    assert sites[5:8] == ("down_blocks.2.attentions.1", "mid_block.attentions.0", "up_blocks.1.attentions.0")


def test_config_missing_fields_have_the_defaults_of_diffusers():
    config = {"_class_name": "UNet2DConditionModel", "attention_head_dim": [5, 10, 20, 20], "in_channels": 9}
    sd2 = {"cross_attention_dim": 1024, "use_linear_projection": True, "_diffusers_version": "0.6.0"}
    assert UNetConfig.from_diffusers(config | sd2) == UNetConfig.sd2(inpainting=True)
    assert UNetConfig.from_diffusers({"sample_size": 64}) == UNetConfig(cross_attention_dim=1280)


@pytest.mark.parametrize("config", [UNetConfig.sd15(), UNetConfig.sd2(), UNET, LDM])
def test_config_round_trip(config):
    assert UNetConfig.from_diffusers(json.loads(json.dumps(config.to_diffusers()))) == config


def test_impossible_config_lists_everything():
    config = {
        "_class_name": "AutoencoderKL",
        "addition_embed_type": "text_time",
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "SimpleCrossAttnDownBlock2D"],
        "block_out_channels": [320, 640, 1290],
        "transformer_layers_per_block": [1, 2, 10],
        "attention_head_dim": [5, 10, 20],
        "cross_attention_dim": [768, 768, 768],
    }
    with pytest.raises(WeightsError) as caught:
        UNetConfig.from_diffusers(config)
    for problem in (
        "_class_name = 'AutoencoderKL'",
        "addition_embed_type = 'text_time'",
        "down_block_types = ['SimpleCrossAttnDownBlock2D']",
        "transformer_layers_per_block = [1, 2, 10]",
        "norm_num_groups = 32",
        "1290 / 20",
        "cross_attention_dim = [768, 768, 768]",
        "up_block_types",
    ):
        assert problem in str(caught.value)


def test_saved_and_loaded_whole_or_by_part(tmp_path, tiny):
    write_folder(tmp_path)
    assert equal(load_unet(tmp_path), tiny)
    half = load_unet(find_weights(tmp_path / "unet"), jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert {array.dtype for array in module_state.split(half)[1].values()} == {np.dtype(jnp.bfloat16)}


def test_weights_without_config_are_refused(tmp_path, tiny):
    save_unet(tiny, tmp_path)
    with pytest.raises(WeightsError, match=r"config\.json: missing"):
        load_unet(tmp_path / "diffusion_pytorch_model.safetensors")


def test_single_file(tmp_path):
    file = tmp_path / "sd.safetensors"
    write_single_file(file, LDM, AUTOENCODER)
    assert infer_unet_config(find_part(file, "unet")) == LDM
    assert equal(load_unet(file), randomized(abstract_unet(LDM)))
    plain, average = find_part(file, "unet"), find_stable_diffusion(file, ema=True)
    assert list(average.text_encoder.tensors) == ["text_model.w"]
    for name in plain.tensors:
        np.testing.assert_array_equal(average.unet.tensors[name], plain.tensors[name] + 1)


def test_a_single_file_converted_serves_as_the_file_does(tmp_path):
    file, folder = tmp_path / "sd.safetensors", tmp_path / "sd"
    write_single_file(file, LDM, AUTOENCODER)
    convert(file, folder)
    assert equal(load_unet(folder), load_unet(file))
    averaged = [find_stable_diffusion(source, ema=True).unet.tensors for source in (file, folder)]
    assert averaged[0].keys() == averaged[1].keys()
    for part in ("vae", "text_encoder"):
        assert find_part(folder, part).tensors.keys() == find_part(file, part).tensors.keys()
    # A network in a folder of its own is no such file, nor are folders of several networks.
    save_unet(load_unet(file), tmp_path / "unet")
    assert [is_whole(place) for place in (file, folder, tmp_path / "unet", tmp_path)] == [True, True, False, False]


def test_source_that_is_nowhere_is_named():
    with pytest.raises(WeightsError, match=r"nobody/nothing/unet: .*diffusion_pytorch_model\.safetensors"):
        load_unet("nobody/nothing")


def test_single_file_without_some_networks_is_named(tmp_path, tiny):
    save_unet(tiny, tmp_path)
    with pytest.raises(WeightsError, match="without unet, vae, text_encoder"):
        find_stable_diffusion(tmp_path / "diffusion_pytorch_model.safetensors")


def test_incomplete_single_file_is_named(tmp_path):
    write_single_file(tmp_path / "sd.safetensors", LDM, AUTOENCODER)
    weights = find_part(tmp_path / "sd.safetensors", "unet")
    kept = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("input_blocks.3.")}
    with pytest.raises(WeightsError, match="3 input_blocks of 2 levels"):
        infer_unet_config(type(weights)(weights.id, {}, weights.files, kept))


@pytest.mark.parametrize("wrong", ["latents", "timesteps", "context"])
def test_wrong_shape_is_named(tiny, inputs, wrong):
    given = dict(zip(("latents", "timesteps", "context"), inputs, strict=True))
    with pytest.raises(AssertionError, match=wrong):
        tiny(**{**given, wrong: given[wrong][None]})
