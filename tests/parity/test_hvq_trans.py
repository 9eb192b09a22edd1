"""HVQ-Trans against a torch implementation on torch's own attention."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import jaxad
from jaxad.detectors.hvq_trans import HVQTrans
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

CHANNELS, WIDTH, HEADS, HIDDEN, SIDE, DEPTH, ENTRIES, TRANSPORT = 32, 16, 2, 24, 5, 3, 11, 4.0


class TorchHVQTrans(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.rand(SIDE, WIDTH // 2)) for _ in range(2))
        self.project_in, self.project_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(2 * WIDTH, CHANNELS)
        self.encoder = nn.ModuleList([twins.PostNormLayer(WIDTH, HEADS, HIDDEN, 1) for _ in range(DEPTH)])
        self.decoder = nn.ModuleList([twins.PostNormLayer(2 * WIDTH, HEADS, HIDDEN, 2) for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(2 * WIDTH)
        sizes = [WIDTH] + [2 * WIDTH] * DEPTH
        self.books = nn.ParameterList([nn.Parameter(torch.randn(ENTRIES, size)) for size in sizes])

    def forward(self, x):
        """Tokens [b n c] -> restored, transport, and what features and entries are apart, once for either side."""
        positions = twins.positions_of(self.rows, self.columns)
        outputs = [self.project_in(x)]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1], outputs[-1:], positions))
        commitment, chase, memories, upper = 0, 0, [], None
        for level, book in enumerate(self.books):
            z = outputs[-1 - level]
            z = z if upper is None else torch.cat([z, upper], -1)
            entry = book[torch.cdist(z, book).argmin(-1)]
            commitment = commitment + F.mse_loss(z, entry.detach())
            chase = chase + F.mse_loss(entry, z.detach())
            passed = z + (entry - z).detach()
            if upper is None:
                upper = passed
            else:
                memories.append(passed)
        likely = (z @ book.T / ENTRIES).softmax(-1)
        cost = 1 - F.cosine_similarity(z[:, :, None], book[None, None], dim=-1)
        y = memories[0]
        for layer, memory in zip(self.decoder, memories, strict=True):
            y = layer(y, [y, memory], torch.cat([positions, positions], -1))
        return self.project_out(self.norm(y)), (likely * cost).sum(-1), commitment, chase


def arrays_of(model):
    """Tensors of the torch model by the paths of the detector."""
    books = {f"codebooks/{number}/vectors": book for number, book in enumerate(model.books[1:])}
    return twins.transformer_arrays(model) | books | {"top/vectors": model.books[0]}


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchHVQTrans(), 0.2)
    config = jaxad.HVQTransConfig(
        backbone=f"random:{CHANNELS}x2",
        image_size=14 * SIDE,
        width=WIDTH,
        heads=HEADS,
        hidden=HIDDEN,
        depth=DEPTH,
        entries=ENTRIES,
        dropout=0.0,
        transport=TRANSPORT,
    )
    x = torch.randn(3, SIDE**2, CHANNELS, generator=generator)
    restored, transport, commitment, chase = twin(x)
    maps = (restored - x).norm(dim=-1) + TRANSPORT * transport
    loss = F.mse_loss(restored, x) + 0.25 * commitment + chase
    twins.compare(HVQTrans.create(config), twin, arrays_of, Features(x.numpy(), (SIDE, SIDE)), maps, loss)
