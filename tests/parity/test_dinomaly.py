"""Dinomaly against a torch implementation, and against what its authors' modules gave on random weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F

import jaxad
from jaxad.detectors.dinomaly import Dinomaly
from jaxad.models.weights.key_map import LINEAR, NORM
from jaxad.nn import module_state
from jaxad.nn.resize import bilinear
from jaxad.training.stable_adamw import stable_adamw
from jaxad.types import Features
from tests.parity.twins import BOUND, error, heads_of, joined, judged

pytestmark = pytest.mark.parity

WIDTH, HEADS, SIDE, GROUPS = 48, 3, 6, 2
LAYERS = {
    "bottleneck/fc1": ("bottleneck.0.fc1", LINEAR),
    "bottleneck/fc2": ("bottleneck.0.fc2", LINEAR),
    "decoder/{}/norm1": ("decoder.{}.norm1", NORM),
    "decoder/{}/norm2": ("decoder.{}.norm2", NORM),
    "decoder/{}/qkv": ("decoder.{}.attn.qkv", LINEAR),
    "decoder/{}/out": ("decoder.{}.attn.proj", LINEAR),
    "decoder/{}/fc1": ("decoder.{}.mlp.fc1", LINEAR),
    "decoder/{}/fc2": ("decoder.{}.mlp.fc2", LINEAR),
}
TENSORS = {
    f"{path}/{leaf}".format(number): (f"{name}{tensor.suffix}".format(number), tensor)
    for path, (name, layout) in LAYERS.items()
    for number in range(8)
    for leaf, tensor in layout.items()
}
"""The name in torch of each array, and how it lies there."""


class TorchAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        """With all n x n weights, which the linear form never makes."""
        q, k, v = (heads_of(part, HEADS) for part in self.qkv(x).chunk(3, -1))
        weights = (F.elu(q) + 1) @ (F.elu(k) + 1).transpose(-1, -2)
        return self.proj(joined(weights / weights.sum(-1, keepdim=True) @ v))


class TorchMLP(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class TorchBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-8), nn.LayerNorm(WIDTH, eps=1e-8)
        self.attn, self.mlp = TorchAttention(), TorchMLP()

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class TorchDinomaly(nn.Module):
    def __init__(self):
        super().__init__()
        self.bottleneck = nn.ModuleList([TorchMLP()])
        self.decoder = nn.ModuleList([TorchBlock() for _ in range(8)])

    def forward(self, blocks, leading=1):
        """Blocks [l b n c] -> patches of the groups as they are and as they are restored, [g b n c] each."""
        x, outputs = self.bottleneck[0](blocks.mean(0)), []
        for block in self.decoder:
            x = block(x)
            outputs.insert(0, x)
        return tuple(s.unflatten(0, (GROUPS, -1)).mean(1)[:, :, leading:] for s in (blocks, torch.stack(outputs)))

    def loss(self, blocks, share=0.9, factor=0.1):
        losses = []
        for target, found in zip(*self(blocks), strict=True):
            distance = 1 - F.cosine_similarity(target, found.detach(), dim=-1)
            least = distance.flatten().topk(int(distance.numel() * (1 - share)))[0][-1]
            found.register_hook(lambda g, easy=distance < least: torch.where(easy[..., None], factor * g, g))
            losses.append((1 - F.cosine_similarity(target.flatten(1), found.flatten(1))).mean())
        return torch.stack(losses).mean()


def step_of_torch(parameters, states, rate, decay, step):
    """StableAdamW with AMSGrad, in place."""
    for parameter, state in zip(parameters, states, strict=True):
        gradient = parameter.grad
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * gradient
        state["v"] = 0.999 * state.get("v", 0) + 0.001 * gradient**2
        state["largest"] = torch.maximum(state.get("largest", torch.zeros_like(gradient)), state["v"])
        denominator = (state["largest"] / (1 - 0.999**step)).sqrt() + 1e-10
        growth = max(1.0, float((gradient / denominator).square().mean().sqrt()))
        with torch.no_grad():
            parameter -= rate * decay * parameter
            parameter -= rate / growth * state["m"] / (1 - 0.9**step) / denominator


def detector(tensors):
    """Dinomaly with the weights of a torch module."""
    config = jaxad.DinomalyConfig(backbone=f"random:{WIDTH}x10", image_size=14 * SIDE, heads=HEADS, dropout=0.0)
    graphdef, trained, rest = module_state.split(Dinomaly.create(config), nnx.Param, ...)
    assert trained.keys() == TENSORS.keys()
    ours = {path: jnp.asarray(leaf.to_parameter(np.asarray(tensors[name]))) for path, (name, leaf) in TENSORS.items()}
    return module_state.merge(graphdef, rest | ours)


def features(blocks, leading=1):
    """Blocks [l b n c] as the detector encodes them."""
    tokens = np.concatenate(blocks.reshape(GROUPS, -1, *blocks.shape[1:]).mean(1), -1)
    return Features(tokens[:, leading:], (SIDE, SIDE), {"leading": tokens[:, :leading]})


def gradients(model, encoded, step=1000):
    """Loss and its gradients, these by the names of torch."""
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss_at(encoded, jax.random.key(0), jnp.int32(step))[0]

    value, found = jax.jit(jax.value_and_grad(loss))(trained)
    return float(value), {TENSORS[path][0]: np.asarray(TENSORS[path][1].to_tensor(g)) for path, g in found.items()}


@pytest.fixture(scope="module")
def twin():
    generator = torch.Generator().manual_seed(0)
    model = TorchDinomaly()
    for name, parameter in model.named_parameters():
        gain = "norm" in name and name.endswith("weight")
        scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.data = gain + scale * torch.randn(parameter.shape, generator=generator)
    return model, torch.randn(8, 4, 1 + SIDE**2, WIDTH, generator=generator)


def test_maps_loss_and_gradients_are_those_of_torch(twin):
    model, blocks = twin
    encoded, ours = features(blocks.numpy()), detector(model.state_dict())
    target, found = model(blocks)
    expected = (1 - F.cosine_similarity(target, found, dim=-1)).mean(0)
    assert error(judged(ours, encoded).reshape(4, -1), expected) < BOUND
    for share, step in ((0.9, 1000), (0.45, 500)):
        model.zero_grad()
        loss = model.loss(blocks, share)
        loss.backward()
        value, by_name = gradients(ours, encoded, step)
        assert value == pytest.approx(loss.item(), rel=BOUND)
        assert max(error(by_name[name], parameter.grad) for name, parameter in model.named_parameters()) < BOUND


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_of_stable_adamw_are_those_of_torch(decay):
    rng = np.random.default_rng(0)
    # Gradients that shrink bring out AMSGrad's maximum, those that jump the clipping.
    scales = [1, 1, 0.05, 0.02, 30, 1, 0.5, 200]
    start = {"a": rng.normal(size=(5, 7)).astype(np.float32), "b": rng.normal(size=7).astype(np.float32)}
    parameters = [torch.tensor(array) for array in start.values()]
    states = [{}, {}]
    optimizer = stable_adamw(lambda step: 0.01 * (1 + step), weight_decay=decay)
    ours, state = start, optimizer.init(start)
    for number, scale in enumerate(scales):
        drawn = {name: (scale * rng.normal(size=array.shape)).astype(np.float32) for name, array in start.items()}
        for parameter, gradient in zip(parameters, drawn.values(), strict=True):
            parameter.grad = torch.tensor(gradient)
        step_of_torch(parameters, states, 0.01 * (1 + number), decay, number + 1)
        updates, state = optimizer.update(drawn, state, ours)
        ours = optax.apply_updates(ours, updates)
        assert max(error(one, other) for one, other in zip(ours.values(), parameters, strict=True)) < BOUND


@pytest.mark.real
def test_it_equals_the_modules_of_its_authors(real_data):
    folder = real_data / "peers" / "dinomaly"
    expected = np.load(folder / "expected.npz")
    tensors = safetensors.numpy.load_file(folder / "weights_and_gradients.safetensors")
    ours, encoded = detector(tensors), features(expected["features"][2:])
    grid = (GROUPS, 2, WIDTH, SIDE**2)
    targets = np.stack(np.split(encoded.tokens, GROUPS, -1))
    assert error(targets, expected["encoder"].reshape(grid).swapaxes(2, 3)) < BOUND
    assert error(np.stack(ours.restore(encoded)), expected["decoder"].reshape(grid).swapaxes(2, 3)) < BOUND
    larger = bilinear(SIDE, 28, align_corners=True)
    assert error(larger @ judged(ours, encoded) @ larger.T, expected["map"][:, 0]) < BOUND
    value, by_name = gradients(ours, encoded)
    assert value == pytest.approx(float(expected["loss"]), rel=BOUND)
    assert by_name.keys() == {name for name in tensors if not name.startswith("grad.")}
    assert max(error(array, tensors[f"grad.{name}"]) for name, array in by_name.items()) < BOUND
