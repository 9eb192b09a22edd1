"""UNet and autoencoder of Stable Diffusion against diffusers, on checkpoints that it wrote."""

from __future__ import annotations

import json
import re

import flax.serialization
import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file

from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder, load_autoencoder, save_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps, find_part, unet_key_map
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet, load_unet, save_unet
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state

pytestmark = pytest.mark.parity

TWO_LEVELS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 24,
}
UNETS = {
    # As SD 1: 1x1 convolutions around transformers, one number of heads, 4 channels.
    "sd1": {**TWO_LEVELS, "block_out_channels": (32, 64), "attention_head_dim": 8, "layers_per_block": 1},
    # As SD 2-inpainting: matrices, a number of heads for each level, 9 channels.
    "sd2": {
        **TWO_LEVELS,
        "in_channels": 9,
        "block_out_channels": (64, 128),
        "attention_head_dim": (1, 2),
        "use_linear_projection": True,
        "layers_per_block": 2,
    },
}
AUTOENCODER = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
}


def randomized(model):
    """Draw weights so that no branch vanishes: gains about 1, biases not 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        gain = parameter.ndim == 1 and name.endswith("weight")
        parameter.data = 1.0 * gain + noise * (0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5)
    return model.eval()


def unet(kind, **changes):
    return randomized(UNet2DConditionModel(**{**UNETS[kind], **changes}))


@pytest.fixture(scope="module")
def autoencoder():
    return randomized(AutoencoderKL(**AUTOENCODER))


@pytest.fixture(scope="module", params=[*UNETS, "vae"])
def network(request, autoencoder):
    """A network of diffusers, and what loads and saves ours."""
    if request.param == "vae":
        return autoencoder, load_autoencoder, save_autoencoder
    return unet(request.param), load_unet, save_unet


def error(actual, expected):
    return float(np.abs(np.asarray(actual) - expected).max() / np.sqrt(np.mean(expected**2)))


def jitted(network, call):
    graphdef, arrays = module_state.split(network)
    with jax.default_matmul_precision("highest"):
        return jax.jit(lambda arrays, *inputs: call(module_state.merge(graphdef, arrays), *inputs)), arrays


def to_nhwc(tensor):
    return np.moveaxis(tensor.detach().numpy(), -3, -1)


def to_nchw(array):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 1)))


def record_probabilities(unet):
    """The cross-attention probabilities of each site, filled in by the next forward pass."""
    found = {}
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(AttnProcessor())
            scores, site = module.get_attention_scores, name.partition(".transformer_blocks")[0]
            module.get_attention_scores = lambda *args, scores=scores, site=site: found.setdefault(site, scores(*args))
    return found


def record_outputs(unet):
    found = {}
    stages = {f"up_blocks.{index}": block for index, block in enumerate(unet.up_blocks)} | {"mid_block": unet.mid_block}
    for name, block in stages.items():
        block.register_forward_hook(lambda module, inputs, output, name=name: found.update({name: output}))
    upsampler = unet.up_blocks[0].upsamplers[0]
    upsampler.register_forward_pre_hook(lambda module, inputs: found.update({"up_blocks.0.layers": inputs[0]}))
    return found


@pytest.mark.parametrize(
    ("kind", "groups", "sizes"),
    # An odd side is rounded up on the way down and cut on the way up.
    [("sd1", 8, [(8, 8), (5, 6)]), ("sd2", 32, [(6, 10)])],
)
def test_unet_equals_diffusers(kind, groups, sizes, tmp_path):
    theirs = unet(kind, norm_num_groups=groups)
    theirs.save_pretrained(tmp_path)
    ours = load_unet(tmp_path)
    sites, taps = ours.config.attention_sites, ("mid_block", "up_blocks.0.layers", "up_blocks.0", "up_blocks.1")
    run, arrays = jitted(ours, lambda u, *a: u(*a, taps=taps, attention_sites=sites, heads="each"))
    probabilities, outputs = record_probabilities(theirs), record_outputs(theirs)
    generator, worst = np.random.default_rng(0), {}
    for size in sizes:
        latents = generator.normal(size=(2, *size, ours.config.in_channels)).astype(np.float32)
        context = generator.normal(size=(2, 7, 24)).astype(np.float32)
        timesteps = np.array([1, 801])
        probabilities.clear()
        with torch.no_grad():
            expected = theirs(to_nchw(latents), torch.from_numpy(timesteps), torch.from_numpy(context)).sample
        with jax.default_matmul_precision("highest"):
            noise, features, maps = run(arrays, latents, timesteps, context)
        figures = {"noise": error(noise, to_nhwc(expected))}
        figures |= {name: error(features[name], to_nhwc(outputs[name])) for name in taps}
        assert tuple(maps) == tuple(sorted(probabilities, key=sites.index)) == sites
        for site in sites:
            figures[site] = error(maps[site].reshape(probabilities[site].shape), probabilities[site].numpy())
        worst |= {name: max(figure, worst.get(name, 0)) for name, figure in figures.items()}
    print({name: f"{figure:.1e}" for name, figure in worst.items()})
    assert max(worst.values()) < 1e-4


def test_autoencoder_equals_diffusers(autoencoder, tmp_path):
    autoencoder.save_pretrained(tmp_path)
    run, arrays = jitted(load_autoencoder(tmp_path), lambda vae, x: (m := vae.encode(x), vae.decode(m.mean)))
    for size in ((16, 16), (8, 20)):
        images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
        with torch.no_grad():
            expected = autoencoder.encode(to_nchw(images)).latent_dist
            decoded = autoencoder.decode(expected.mode()).sample
        with jax.default_matmul_precision("highest"):
            moments, ours = run(arrays, images)
        figures = {
            "mean": error(moments.mean, to_nhwc(expected.mean)),
            "logvar": error(moments.logvar, to_nhwc(expected.logvar)),
            "kl": error(moments.kl(), expected.kl().numpy()),
            "decoded": error(ours, to_nhwc(decoded)),
        }
        print({name: f"{figure:.1e}" for name, figure in figures.items()})
        assert max(figures.values()) < 1e-4


def assert_same(first, second):
    first, second = (module_state.split(module)[1] for module in (first, second))
    assert first.keys() == second.keys()
    for path in first:
        np.testing.assert_array_equal(first[path], second[path], err_msg=path)


def write_flax(folder, model):
    """The model as diffusers' Flax classes named and laid it out."""
    tree = {}
    for name, tensor in model.state_dict().items():
        array = tensor.numpy()
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            if isinstance(model, AutoencoderKL):
                name = name.replace(f".{new}.", f".{old}.")
        *parents, leaf = re.sub(r"\.(\d+)", r"_\1", name).split(".")
        if leaf == "weight":
            leaf = "scale" if array.ndim == 1 else "kernel"
            array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[leaf] = np.ascontiguousarray(array)
    folder.mkdir()
    (folder / "diffusion_flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    config = {**model.config, "_class_name": f"Flax{type(model).__name__}"}
    (folder / "config.json").write_text(json.dumps(config, default=list))


def test_every_format_gives_the_same_network(network, tmp_path):
    model, load, _ = network
    model.save_pretrained(tmp_path / "safetensors")
    model.save_pretrained(tmp_path / "bin", safe_serialization=False)
    write_flax(tmp_path / "flax", model)
    assert (tmp_path / "bin" / "diffusion_pytorch_model.bin").is_file()
    reference = load(tmp_path / "safetensors")
    for format in ("bin", "flax"):
        assert_same(load(tmp_path / format), reference)


def test_round_trip_is_bit_equal(network, tmp_path):
    model, load, save = network
    model.save_pretrained(tmp_path / "torch")
    save(load(tmp_path / "torch"), tmp_path / "jaxad")
    state = model.state_dict()
    again = type(model).from_pretrained(tmp_path / "jaxad", low_cpu_mem_usage=False).state_dict()
    assert state.keys() == again.keys()
    assert all(torch.equal(state[name], again[name]) for name in state)


def ldm_unet_name(name, layers, up_attention):
    """The LDM name of a diffusers one."""
    for new, old in (
        ("norm1", "in_layers.0"),
        ("conv1", "in_layers.2"),
        ("time_emb_proj", "emb_layers.1"),
        ("norm2", "out_layers.0"),
        ("conv2", "out_layers.3"),
        ("conv_shortcut", "skip_connection"),
    ):
        name = re.sub(rf"(resnets\.\d+)\.{new}\b", rf"\1.{old}", name)
    name = re.sub(r"^time_embedding\.linear_(\d)", lambda m: f"time_embed.{2 * int(m[1]) - 2}", name)
    name = re.sub(r"^conv_in\b", "input_blocks.0.0", name)
    name = re.sub(r"^conv_norm_out\b", "out.0", name)
    name = re.sub(r"^conv_out\b", "out.2", name)
    name = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}", name)
    name = name.replace("mid_block.attentions.0", "middle_block.1")
    for kind, part in (("resnets", 0), ("attentions", 1)):
        name = re.sub(
            rf"^down_blocks\.(\d)\.{kind}\.(\d)",
            lambda m, part=part: f"input_blocks.{1 + int(m[1]) * (layers + 1) + int(m[2])}.{part}",
            name,
        )
        name = re.sub(
            rf"^up_blocks\.(\d)\.{kind}\.(\d)",
            lambda m, part=part: f"output_blocks.{int(m[1]) * (layers + 1) + int(m[2])}.{part}",
            name,
        )
    name = re.sub(
        r"^down_blocks\.(\d)\.downsamplers\.0\.conv",
        lambda m: f"input_blocks.{(int(m[1]) + 1) * (layers + 1)}.0.op",
        name,
    )
    return re.sub(
        r"^up_blocks\.(\d)\.upsamplers\.0\.conv",
        lambda m: f"output_blocks.{int(m[1]) * (layers + 1) + layers}.{1 + up_attention[int(m[1])]}.conv",
        name,
    )


def ldm_autoencoder_name(name, levels):
    """The LDM name of a diffusers one."""
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", name)
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    attention = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
    name = re.sub(
        r"mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)",
        lambda m: f"mid.attn_1.{attention[m[1]]}",
        name,
    )
    return name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")


def assert_converted(convert, state, layers, model):
    """Diffusers' own converter reads the file as the network that it was made of."""
    config = {"layers_per_block": layers, "down_block_types": (0, 1, 2), "up_block_types": (0, 1, 2)}
    converted, original = convert(dict(state), config), model.state_dict()
    assert converted.keys() == original.keys()
    assert all(torch.equal(converted[name], original[name]) for name in original)


@pytest.mark.parametrize("kind", UNETS)
def test_ldm_checkpoint_of_a_unet(kind, tmp_path):
    model = unet(kind)
    layers = model.config.layers_per_block
    state = {
        f"model.diffusion_model.{ldm_unet_name(name, layers, (False, True))}": tensor
        for name, tensor in model.state_dict().items()
    }
    assert_converted(convert_ldm_unet_checkpoint, state, layers, model)
    averages = {"model_ema." + name[6:].replace(".", ""): tensor + 1 for name, tensor in state.items()}
    state |= {**averages, "model_ema.decay": torch.tensor(0.9999), "betas": torch.ones(3)}
    torch.save({"epoch": 3, "global_step": 9, "state_dict": state}, tmp_path / "sd.ckpt")

    ours, average = load_unet(tmp_path / "sd.ckpt"), find_part(tmp_path / "sd.ckpt", "unet", ema=True)
    assert ours.config == UNetConfig.from_diffusers(model.config)
    save_unet(ours, tmp_path)
    again = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())
    for name, tensor in average.tensors.items():
        np.testing.assert_array_equal(tensor, state[f"model.diffusion_model.{name}"].numpy() + 1)


def test_ldm_checkpoint_of_an_autoencoder(autoencoder, tmp_path):
    state = {}
    for name, tensor in autoencoder.state_dict().items():
        is_matrix = "mid_block.attentions" in name and tensor.ndim == 2
        name = f"first_stage_model.{ldm_autoencoder_name(name, 3)}"
        state[name] = tensor[:, :, None, None] if is_matrix else tensor
    assert_converted(convert_ldm_vae_checkpoint, state, 2, autoencoder)
    state["first_stage_model.loss.logvar"] = torch.zeros(1)
    torch.save({"state_dict": state}, tmp_path / "sd.ckpt")

    ours = load_autoencoder(tmp_path / "sd.ckpt")
    assert ours.config == AutoencoderConfig.from_diffusers(autoencoder.config)
    save_autoencoder(ours, tmp_path)
    again = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(tensor, again[name]) for name, tensor in autoencoder.state_dict().items())


def tensor_shapes(abstract, key_map):
    """Name -> shape of the tensors that a network is filled from, without memory for them."""
    graphdef, parameters = module_state.split(abstract)
    arrays = {path: np.empty(parameter.shape, "V0") for path, parameter in parameters.items()}
    return {name: array.shape for name, array in to_torch(module_state.merge(graphdef, arrays), key_map).items()}


SD2_INPAINTING = {
    "in_channels": 9,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
KL_F8 = {
    **AUTOENCODER,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}


@pytest.mark.parametrize(
    ("published", "config", "parameters"),
    [
        ({"cross_attention_dim": 768}, UNetConfig.sd15(), 859_520_964),
        (SD2_INPAINTING, UNetConfig.sd2(inpainting=True), 865_925_124),
        (KL_F8, AutoencoderConfig(), 83_653_863),
    ],
)
def test_full_size_has_the_tensors_of_diffusers(published, config, parameters):
    is_unet = isinstance(config, UNetConfig)
    with torch.device("meta"):
        model = (UNet2DConditionModel if is_unet else AutoencoderKL)(**published)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if is_unet:
        shapes = tensor_shapes(abstract_unet(config), unet_key_map(config))
    else:
        shapes = tensor_shapes(abstract_autoencoder(config), autoencoder_key_maps(config)["diffusers"])
    assert type(config).from_diffusers(model.config) == config
    assert shapes == expected
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters
