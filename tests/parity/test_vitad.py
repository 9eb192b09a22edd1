"""ViTAD against a torch implementation on torch's own encoder layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import jaxad
from jaxad.detectors.vitad import ViTAD
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

WIDTH, HEADS, SIDE, DEPTH = 32, 2, 5, 6


class TorchViTAD(nn.Module):
    def __init__(self):
        super().__init__()
        self.fusion = nn.Linear(2 * WIDTH, WIDTH)
        self.positions = nn.Parameter(torch.zeros(SIDE**2, WIDTH))
        options = {"dropout": 0.0, "activation": "gelu", "layer_norm_eps": 1e-6}
        self.decoder = nn.ModuleList(
            [
                nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True, norm_first=True, **options)
                for _ in range(DEPTH)
            ]
        )

    def forward(self, neck):
        x = self.fusion(neck) + self.positions
        outputs = {}
        for number, layer in enumerate(self.decoder):
            x = outputs[number + 1] = layer(x)
        return [outputs[6], outputs[4], outputs[2]]


def arrays_of(model):
    """Tensors of the torch model by the paths of the detector."""
    found, layers = {"positions": model.positions}, {"fusion": model.fusion}
    for number, layer in enumerate(model.decoder):
        at = f"decoder/{number}"
        layers |= {f"{at}/fc1": layer.linear1, f"{at}/fc2": layer.linear2, f"{at}/out": layer.self_attn.out_proj}
        layers |= {f"{at}/norm1": layer.norm1, f"{at}/norm2": layer.norm2}
        found |= {f"{at}/qkv/kernel": layer.self_attn.in_proj_weight.T, f"{at}/qkv/bias": layer.self_attn.in_proj_bias}
    return found | twins.all_arrays(layers)


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchViTAD(), 0.1)
    config = jaxad.ViTADConfig(
        backbone=f"random:{WIDTH}x5",
        image_size=14 * SIDE,
        blocks=(0, 1, 2),
        neck=(3, 4),
        heads=HEADS,
        depth=DEPTH,
    )
    blocks = torch.randn(5, 3, SIDE**2, WIDTH, generator=generator)
    features = Features(np.concatenate(blocks.numpy(), -1), (SIDE, SIDE))
    pairs = [*zip(blocks[:3], twin(torch.cat([blocks[3], blocks[4]], -1)), strict=True)]
    maps, losses = twins.lacking(pairs)
    twins.compare(ViTAD.create(config), twin, arrays_of, features, sum(maps), sum(losses))
