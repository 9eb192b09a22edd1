"""The ViT against transformers and timm, on checkpoints that they wrote, and on real weights."""

from __future__ import annotations

import argparse
import json

import flax.serialization
import jax
import numpy as np
import pytest
import timm
import torch
import transformers
from safetensors.torch import load_file, save_file
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from transformers.core_model_loading import revert_weight_conversion

from jaxad.models.vit.checkpoints import HUGGINGFACE_DINOV2, HUGGINGFACE_VIT, ORIGINAL, TIMM, TIMM_REGISTERS, recognize
from jaxad.models.vit.config import PUBLISHED, ViTConfig
from jaxad.models.vit.network import abstract_vit, load_vit
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.nn import module_state
from jaxad.nn.positions import resize_matrix

pytestmark = pytest.mark.parity

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 14, "image_size": 112}
TIMM_SMALL = {"img_size": 112, "patch_size": 14, "embed_dim": 128, "depth": 2, "num_heads": 2}
SIZES = {"own grid": (112, 112), "shrunk and grown": (84, 154)}


def hugging_face(kind):
    """A random network of that kind; epsilons are those of the published configs."""
    if kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)
        return randomized(transformers.Dinov2WithRegistersModel(config))
    if kind in ("plain", "swiglu"):
        return randomized(transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, use_swiglu_ffn=kind == "swiglu")))
    config = transformers.ViTConfig(**SMALL, intermediate_size=96)
    return randomized(
        {"vit": transformers.ViTModel, "classifier": transformers.ViTForImageClassification}[kind](config)
    )


def of_timm(kind, **others):
    """A random network of timm: DINO's shape, a supervised one with its classifier, or a small DINOv2-g."""
    if kind == "giant":
        gated = {"mlp_ratio": 5.33334, "mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU, "init_values": 1.0}
        others = {**gated, "num_classes": 0, **others}
    else:
        others = {"num_classes": 5 if kind == "supervised" else 0, **others}
    return randomized(VisionTransformer(**{**TIMM_SMALL, "dynamic_img_size": True, **others}))


def randomized(model):
    """Draw weights so that no branch vanishes: gains about 1, biases and tokens not 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "lambda1" in name or "gamma" in name or (parameter.ndim == 1 and name.endswith("weight")):
            parameter.data = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            parameter.data = 0.2 * noise
        elif name.endswith("weight"):
            parameter.data = noise / parameter[0].numel() ** 0.5
        else:
            parameter.data = noise
    return model.eval()


def pixels(size):
    return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def by_torch(model, size):
    """What the network of transformers or timm gives: the final tokens, and the output of each block."""
    images = torch.from_numpy(pixels(size).transpose(0, 3, 1, 2))
    with torch.no_grad():
        if isinstance(model, VisionTransformer):
            options = {"norm": False, "output_fmt": "NLC", "return_prefix_tokens": True}
            final, outputs = model.forward_intermediates(images, **options)
            outputs = [torch.cat([leading, patches], dim=1) for patches, leading in outputs]
        else:
            model = getattr(model, "vit", model)
            options = {"interpolate_pos_encoding": True} if isinstance(model, transformers.ViTModel) else {}
            output = model(images, output_hidden_states=True, **options)
            final, outputs = output.last_hidden_state, output.hidden_states[1:]
    return [x.numpy() for x in (final, *outputs)]


def largest_error(expected, network, size):
    """Largest |error| / RMS of the reference over the final output and every block's output."""
    graphdef, arrays = module_state.split(network)
    blocks = tuple(range(network.config.depth))
    with jax.default_matmul_precision("highest"):
        program = jax.jit(lambda arrays, images: module_state.merge(graphdef, arrays)(images, blocks))
        x, taps = program(arrays, pixels(size))
    pairs = list(zip((x, *(taps[block] for block in blocks)), expected, strict=True))
    error = max(float(np.abs(a - b).max() / np.sqrt(np.mean(b**2))) for a, b in pairs)
    print(f"{network.config.depth} blocks, {size}: {error:.1e}")
    return error


def parameters(source):
    return module_state.split(load_vit(source if isinstance(source, Weights) else find_weights(source)))[1]


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for path in expected:
        np.testing.assert_array_equal(actual[path], expected[path], err_msg=path)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", ["plain", "swiglu", "registers", "vit", "classifier"])
def test_small_random_checkpoint_of_transformers(tmp_path, kind, size):
    model = hugging_face(kind)
    model.save_pretrained(tmp_path)
    assert largest_error(by_torch(model, size), load_vit(find_weights(tmp_path)), size) < 1e-4


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("kind", ["supervised", "giant"])
def test_small_random_checkpoint_of_timm(tmp_path, kind, size):
    model = of_timm(kind, **({"reg_tokens": 4, "no_embed_class": True} if kind == "giant" else {}))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "vit_of_some_size", "num_classes": 5}))
    network = load_vit(find_weights(tmp_path))
    assert (network.config.registers, network.config.swiglu) == ((4, True) if kind == "giant" else (0, False))
    assert largest_error(by_torch(model, size), network, size) < 1e-4


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_original_dino_file(tmp_path, size):
    """DINO's code resizes positions by scale_factor (new + 0.1) / old; timm's network is given them ready-made."""
    state = of_timm("dino").state_dict()
    torch.save(state, tmp_path / "dino_deitsmall8_pretrain.pth")
    grid = [side // 14 for side in size]
    square = state["pos_embed"][:, 1:].reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    scale = tuple((side + 0.1) / 8 for side in grid)
    resized = torch.nn.functional.interpolate(square, scale_factor=scale, mode="bicubic")
    if grid != [8, 8]:
        resized = resized.permute(0, 2, 3, 1).reshape(1, grid[0] * grid[1], -1)
        state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], resized], dim=1)
    model = of_timm("dino", img_size=size)
    model.load_state_dict(state)

    network = load_vit(find_weights(tmp_path / "dino_deitsmall8_pretrain.pth"))
    assert network.config == ViTConfig(
        128, 2, 2, 14, image_size=112, hidden=512, layer_scale=False, interpolation="dinomaly"
    )
    assert largest_error(by_torch(model, size), network, size) < 1e-4


def test_whole_training_state_of_dino(tmp_path):
    teacher, student = of_timm("dino"), VisionTransformer(**TIMM_SMALL, num_classes=0)
    state = {
        "teacher": {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()}
        | {"head.mlp.0.weight": torch.zeros(2, 128)},
        "student": {f"module.backbone.{name}": tensor for name, tensor in student.state_dict().items()},
        "optimizer": torch.optim.AdamW(student.parameters()).state_dict(),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "args": argparse.Namespace(arch="vit_small", patch_size=8),
        "epoch": 100,
    }
    torch.save(state, tmp_path / "full.pth")
    torch.save(teacher.state_dict(), tmp_path / "alone.pth")
    assert_same(parameters(tmp_path / "full.pth"), parameters(tmp_path / "alone.pth"))


def test_hub_names_of_the_giant(tmp_path):
    model = of_timm("giant")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    hub = {name.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3"): array for name, array in state.items()}
    by_hub = recognize(Weights("dinov2_vitg14_pretrain.pth", {}, (), {**hub, "mask_token": np.zeros((1, 128))}))
    by_timm = recognize(Weights("timm", {"architecture": "vit_giant_patch14_dinov2"}, (), state))
    assert by_hub.config.swiglu
    assert by_timm.config.swiglu
    assert (by_hub.config.interpolation, by_timm.config.interpolation) == ("dinomaly", "antialias")
    assert_same(parameters(by_hub.weights), parameters(by_timm.weights))


@pytest.mark.parametrize("kind", ["plain", "swiglu", "registers", "vit"])
def test_every_format_holds_the_same(tmp_path, kind):
    hugging_face(kind).save_pretrained(tmp_path / "safetensors")
    config = (tmp_path / "safetensors" / "config.json").read_text()
    tensors = load_file(tmp_path / "safetensors" / "model.safetensors")
    tree: dict = {}
    for name, tensor in tensors.items():
        *parents, leaf = name.split(".")
        if leaf == "weight":
            leaf = "scale" if tensor.ndim == 1 else "kernel"
            tensor = tensor.permute(*{1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[tensor.ndim])
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = tensor.numpy()
    for name, write in (
        ("pytorch_model.bin", lambda file: torch.save(tensors, file)),
        ("flax_model.msgpack", lambda file: file.write_bytes(flax.serialization.msgpack_serialize(tree))),
    ):
        folder = tmp_path / name.replace(".", "_")
        folder.mkdir()
        (folder / "config.json").write_text(config)
        write(folder / name)
        assert_same(parameters(folder), parameters(tmp_path / "safetensors"))


@pytest.mark.parametrize("kind", ["plain", "swiglu", "registers", "vit", "timm", "timm giant", "timm registers"])
def test_round_trip_to_torch_is_bit_equal(kind):
    if kind.startswith("timm"):
        others = {"reg_tokens": 4, "no_embed_class": True} if kind == "timm registers" else {}
        expected = of_timm("dino" if kind == "timm" else "giant", **others).state_dict()
        config = {"architecture": "vit"}
    else:
        model = hugging_face(kind)
        expected = revert_weight_conversion(model, model.state_dict())
        config = model.config.to_dict()
    weights = Weights("made here", config, (), {name: tensor.numpy() for name, tensor in expected.items()})
    returned = to_torch(load_vit(weights), recognize(weights).key_map)
    assert returned.keys() == {n for n in expected if not n.startswith(("pooler", "embeddings.mask_token"))}
    for name, array in returned.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_sharded_checkpoint(tmp_path):
    model = hugging_face("plain")
    model.save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    model.save_pretrained(tmp_path / "whole")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    assert_same(parameters(tmp_path / "shards"), parameters(tmp_path / "whole"))


@pytest.mark.real
@pytest.mark.parametrize("side", [224, 448])
def test_real_dinov2_small(real_data, side):
    folder = real_data / "weights" / "dinov2-small"
    model = transformers.Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
    assert largest_error(by_torch(model, (side, side)), load_vit(find_weights(folder)), (side, side)) < 1e-4


def tensor_shapes(config, key_map):
    """Name -> shape of the tensors that a network of that shape is filled from, without memory for them."""
    graphdef, abstract = module_state.split(abstract_vit(config))
    arrays = {path: np.empty(parameter.shape, "V0") for path, parameter in abstract.items()}
    return {name: array.shape for name, array in to_torch(module_state.merge(graphdef, arrays), key_map).items()}


def published_by_transformers(hub_id, config):
    """Name -> shape of the tensors that transformers would save for it."""
    shape = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "patch_size": config.patch,
        "image_size": config.image_size,
    }
    with torch.device("meta"):
        if "dinov2-with" in hub_id:
            shape["use_swiglu_ffn"] = config.swiglu
            model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**shape))
        elif "dinov2" in hub_id:
            model = transformers.Dinov2Model(transformers.Dinov2Config(**shape, use_swiglu_ffn=config.swiglu))
        else:
            model = transformers.ViTModel(transformers.ViTConfig(**shape, intermediate_size=config.hidden))
    return revert_weight_conversion(model, model.state_dict())


@pytest.mark.parametrize(("hub_id", "config"), PUBLISHED.values(), ids=PUBLISHED)
def test_full_size_has_the_tensors_of_the_torch_class(hub_id, config):
    expected = {
        name: tuple(tensor.shape)
        for name, tensor in published_by_transformers(hub_id, config).items()
        if not name.startswith(("pooler", "embeddings.mask_token"))
    }
    key_map = HUGGINGFACE_DINOV2 if config.layer_scale else HUGGINGFACE_VIT
    assert tensor_shapes(config, key_map) == expected


@pytest.mark.parametrize(
    ("name", "config", "key_map"),
    [
        ("vit_small_patch8_224.dino", ViTConfig.dino("small", 8), ORIGINAL),
        ("vit_base_patch16_224.dino", ViTConfig.dino("base", 16), ORIGINAL),
        ("vit_base_patch14_reg4_dinov2.lvd142m", ViTConfig.dinov2("base", 4), TIMM_REGISTERS),
        ("vit_giant_patch14_dinov2.lvd142m", ViTConfig.dinov2("giant"), TIMM),
    ],
)
def test_full_size_has_the_tensors_of_timm(name, config, key_map):
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=0).state_dict()
    assert tensor_shapes(config, key_map) == {name: tuple(tensor.shape) for name, tensor in state.items()}
    tensors = {name: np.broadcast_to(np.float32(0), tuple(tensor.shape)) for name, tensor in state.items()}
    read = recognize(Weights(name, {"architecture": name}, (), tensors))
    assert read.key_map is key_map
    assert read.config == ViTConfig(**{**vars(config), "interpolation": "antialias"})


@pytest.mark.parametrize("new", [16, 28, 32, 37, 50])
def test_positions_are_resized_as_by_torch(new):
    values = np.random.default_rng(0).normal(size=(1, 2, 37, 37)).astype(np.float32)

    def interpolated(**how):
        return torch.nn.functional.interpolate(torch.from_numpy(values), mode="bicubic", **how).numpy()

    def by_us(interpolation):
        matrix = resize_matrix(37, new, interpolation)
        return np.einsum("ij,kl,bcjl->bcik", matrix, matrix, values)

    np.testing.assert_allclose(by_us("bicubic"), interpolated(size=(new, new)), atol=3e-5)
    np.testing.assert_allclose(by_us("antialias"), interpolated(size=(new, new), antialias=True), atol=3e-5)
    np.testing.assert_allclose(by_us("dinomaly"), interpolated(scale_factor=(new + 0.1) / 37), atol=3e-5)
