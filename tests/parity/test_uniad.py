"""UniAD against a torch implementation on torch's own attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import jaxad
from jaxad.detectors.uniad import UniAD
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

CHANNELS, WIDTH, HEADS, HIDDEN, GRID, DEPTH, HIDDEN_SIDE = 32, 16, 2, 24, (5, 5), 2, 3


class TorchUniAD(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.rand(side, WIDTH // 2)) for side in GRID)
        self.project_in, self.project_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.encoder = nn.ModuleList([twins.PostNormLayer(WIDTH, HEADS, HIDDEN, 1) for _ in range(DEPTH)])
        self.decoder = nn.ModuleList([twins.PostNormLayer(WIDTH, HEADS, HIDDEN, 2) for _ in range(DEPTH)])
        self.queries = nn.ParameterList([torch.zeros(GRID[0] * GRID[1], WIDTH) for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        positions = twins.positions_of(self.rows, self.columns)
        places = [(row, column) for row in range(GRID[0]) for column in range(GRID[1])]
        hidden = torch.tensor([[max(abs(a - c), abs(b - d)) <= HIDDEN_SIDE // 2 for c, d in places] for a, b in places])
        memory = self.project_in(x)
        for layer in self.encoder:
            memory = layer(memory, [memory], positions, hidden)
        output = memory
        for layer, queries in zip(self.decoder, self.queries, strict=True):
            output = layer(queries.expand_as(memory), [memory, output], positions, hidden)
        return self.project_out(self.norm(output))


def arrays_of(model):
    """Tensors of the torch model by the paths of the detector."""
    queries = {f"queries/{number}": queries for number, queries in enumerate(model.queries)}
    return twins.transformer_arrays(model) | queries


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchUniAD(), 0.2)
    config = jaxad.UniADConfig(
        backbone=f"random:{CHANNELS}x2",
        image_size=70,
        width=WIDTH,
        heads=HEADS,
        hidden=HIDDEN,
        depth=DEPTH,
        neighborhood=HIDDEN_SIDE,
        dropout=0.0,
        jitter=0.0,
    )
    x = torch.randn(3, 25, CHANNELS, generator=generator)
    difference = twin(x) - x
    features, maps = Features(x.numpy(), GRID), difference.norm(dim=-1)
    twins.compare(UniAD.create(config), twin, arrays_of, features, maps, difference.square().mean())
