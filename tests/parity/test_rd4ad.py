"""RD4AD against a torch implementation on torch's own convolutions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F

import jaxad
from jaxad.detectors.rd4ad import RD4AD
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
WIDTH, SIDE, DEPTHS = 16, 6, (2, 1, 1)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class TorchBlock(nn.Module):
    def __init__(self, inputs, outputs, step="same"):
        super().__init__()
        inner = outputs // 2
        self.conv1, self.conv3 = nn.Conv2d(inputs, inner, 1, bias=False), nn.Conv2d(inner, outputs, 1, bias=False)
        self.conv2 = nn.Conv2d(inner, inner, 3, 2 if step == "half" else 1, padding=1, bias=False)
        self.shortcut, self.norm = None, None
        if step == "double":
            self.conv2 = nn.ConvTranspose2d(inner, inner, 2, 2, bias=False)
            self.shortcut = nn.ConvTranspose2d(inputs, outputs, 2, 2, bias=False)
        elif step == "half":
            self.shortcut = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
        self.norm1, self.norm2, self.norm3 = ChannelNorm(inner), ChannelNorm(inner), ChannelNorm(outputs)
        if self.shortcut:
            self.norm = ChannelNorm(outputs)

    def forward(self, x):
        y = self.norm1(self.conv1(x)).relu()
        y = self.norm2(self.conv2(y)).relu()
        return self.norm3(self.conv3(y)) + (self.norm(self.shortcut(x)) if self.shortcut else x)


class TorchRD4AD(nn.Module):
    def __init__(self):
        super().__init__()
        wide = 2 * WIDTH
        self.embedding = nn.ModuleList([TorchBlock(3 * WIDTH, wide, "half"), TorchBlock(wide, wide)])
        self.student = nn.ModuleList(
            [
                nn.ModuleList([TorchBlock(wide, WIDTH, "double"), TorchBlock(WIDTH, WIDTH)]),
                nn.ModuleList([TorchBlock(WIDTH, WIDTH)]),
                nn.ModuleList([TorchBlock(WIDTH, WIDTH)]),
            ]
        )

    def forward(self, stages):
        """Stages [3 b c h w], shallow first -> the same restored."""
        x = torch.cat([*stages], 1)
        for block in self.embedding:
            x = block(x).relu()
        outputs = []
        for stage in self.student:
            for block in stage:
                last = block(x)
                x = last.relu()
            outputs.insert(0, last)
        return outputs


def array_of(layer, weight):
    """A weight as it lies here."""
    if isinstance(layer, nn.ConvTranspose2d):
        return weight.permute(0, 2, 3, 1).flatten(1)
    return weight.permute(2, 3, 1, 0)


def arrays_of(model):
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {}
    for name, layer in model.named_modules():
        path = name.replace(".", "/")
        if isinstance(layer, ChannelNorm):
            found |= {f"{path}/scale": layer.weight, f"{path}/bias": layer.bias}
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inner = "/linear" if isinstance(layer, nn.ConvTranspose2d) else ""
            found[f"{path}{inner}/kernel"] = array_of(layer, layer.weight)
    return {path: tensor.detach().numpy().copy() for path, tensor in found.items()}


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def test_maps_loss_and_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    twin = TorchRD4AD()
    for parameter in twin.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    config = jaxad.RD4ADConfig(
        backbone=f"random:{WIDTH}x3", blocks=(0, 1, 2), image_size=14 * SIDE, embedding_depth=2, depths=DEPTHS
    )
    graphdef, trained, rest = module_state.split(RD4AD.create(config), nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    stages = torch.randn(3, 2, WIDTH, SIDE, SIDE, generator=generator)
    tokens = np.concatenate(stages.flatten(3).transpose(2, 3).numpy(), -1)
    features = Features(tokens, (SIDE, SIDE))
    restored = twin(stages)
    pairs = [*zip(stages, restored, strict=True)]
    expected = sum(1 - F.cosine_similarity(*pair, dim=1) for pair in pairs).detach().numpy()
    batch = Batch({}, np.zeros(2, np.uint32), np.ones(2, bool))
    judged = module_state.merge(graphdef, rest | ours).judge(features, batch, np.zeros(2))
    assert error(judged.maps, expected) < BOUND

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(features, jax.random.key(0))[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    total = sum((1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean() for a, b in pairs)
    total.backward()
    assert float(value) == pytest.approx(total.item(), rel=BOUND)
    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays_of(twin)
    assert max(error(gradients[path], expected[path]) for path in gradients) < BOUND
