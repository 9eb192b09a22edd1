"""RD4AD against a torch implementation on torch's own convolutions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import jaxad
from jaxad.detectors.rd4ad import RD4AD
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

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
    """Tensors of the torch model by the paths of the detector."""
    found = {}
    for name, layer in model.named_modules():
        path = name.replace(".", "/")
        if isinstance(layer, ChannelNorm):
            found |= twins.layer_arrays(path, layer)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inner = "/linear" if isinstance(layer, nn.ConvTranspose2d) else ""
            found[f"{path}{inner}/kernel"] = array_of(layer, layer.weight)
    return found


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchRD4AD(), 0.1)
    config = jaxad.RD4ADConfig(
        backbone=f"random:{WIDTH}x3", blocks=(0, 1, 2), image_size=14 * SIDE, embedding_depth=2, depths=DEPTHS
    )
    stages = torch.randn(3, 2, WIDTH, SIDE, SIDE, generator=generator)
    features = Features(np.concatenate(stages.flatten(3).transpose(2, 3).numpy(), -1), (SIDE, SIDE))
    pairs = [(a.movedim(1, -1), b.movedim(1, -1)) for a, b in zip(stages, twin(stages), strict=True)]
    maps, losses = twins.lacking(pairs)
    twins.compare(RD4AD.create(config), twin, arrays_of, features, sum(maps), sum(losses))
