"""INP-Former against a torch implementation, on torch's own attention where that will do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import jaxad
from jaxad.detectors.inp_former import INPFormer
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

WIDTH, HEADS, SIDE, DEPTH, GROUPS, PROTOTYPES = 32, 2, 5, 4, 2, 3
EXTRACTOR = ("query", "key_value", "norm", "mlp_norm", "attention_out", "mlp_in", "mlp_out")
DECODER = ("query", "key_value", "norm1", "norm2", "out", "feed/fc1", "feed/fc2")
"""Names of the same layers here, of the extractor and of the decoder's blocks."""


class TorchBlock(nn.Module):
    def __init__(self, decodes):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-8), nn.LayerNorm(WIDTH, eps=1e-8)
        self.query, self.key_value, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))
        self.mlp = twins.MLP(WIDTH)
        self.scale = nn.Parameter(torch.ones(HEADS)) if decodes else None

    def forward(self, x, other):
        key, value = self.key_value(self.norm1(other)).chunk(2, -1)
        q, k, v = (twins.heads_of(part, HEADS) for part in (self.query(self.norm1(x)), key, value))
        if self.scale is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            cosines = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
            mixed = (cosines * self.scale[:, None, None]).relu() @ v
        y = self.out(twins.joined(mixed))
        x = y if self.scale is not None else x + y
        return x + self.mlp(self.norm2(x))


class TorchINPFormer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(PROTOTYPES, WIDTH))
        self.extractor, self.bottleneck = TorchBlock(False), twins.MLP(WIDTH)
        self.decoder = nn.ModuleList([TorchBlock(True) for _ in range(DEPTH)])

    def forward(self, groups):
        """Groups [g b n c] -> the same restored, and the distance to the nearest prototype."""
        x = groups.mean(0)
        prototypes = self.extractor(self.tokens.expand(len(x), -1, -1), x)
        nearest = F.cosine_similarity(x[:, :, None], prototypes[:, None], dim=-1).amax(-1)
        y, outputs = self.bottleneck(x), []
        for block in self.decoder:
            y = block(y, prototypes)
            outputs.insert(0, y)
        return torch.stack(outputs).unflatten(0, (GROUPS, -1)).mean(1), (1 - nearest).mean()

    def loss(self, groups):
        losses, (restored, coherence) = [], self(groups)
        for target, found in zip(groups, restored, strict=True):
            distance = 1 - F.cosine_similarity(target, found.detach(), dim=-1)
            found.register_hook(lambda g, d=distance: g * ((d / d.mean()) ** 3)[..., None])
            losses.append((1 - F.cosine_similarity(target.flatten(1), found.flatten(1))).mean())
        return torch.stack(losses).mean() + 0.2 * coherence


def arrays_of(model):
    """Tensors of the torch model by the paths of the detector."""
    found = {"extractor/queries": model.tokens}
    layers = {"bottleneck/fc1": model.bottleneck[0], "bottleneck/fc2": model.bottleneck[2]}
    blocks = {"extractor": (model.extractor, EXTRACTOR)} | {
        f"decoder/{number}": (block, DECODER) for number, block in enumerate(model.decoder)
    }
    for at, (block, names) in blocks.items():
        parts = (block.query, block.key_value, block.norm1, block.norm2, block.out, block.mlp[0], block.mlp[2])
        layers |= {f"{at}/{name}": part for name, part in zip(names, parts, strict=True)}
        if block.scale is not None:
            found[f"{at}/scale"] = block.scale
    return found | twins.all_arrays(layers)


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchINPFormer(), 0.1)
    config = jaxad.INPFormerConfig(
        backbone=f"random:{WIDTH}x4",
        image_size=14 * SIDE,
        blocks=(0, 1, 2, 3),
        heads=HEADS,
        depth=DEPTH,
        groups=GROUPS,
        prototypes=PROTOTYPES,
    )
    groups = torch.randn(GROUPS, 3, SIDE**2, WIDTH, generator=generator)
    features = Features(np.concatenate(groups.numpy(), -1), (SIDE, SIDE))
    maps = torch.stack(twins.lacking([*zip(groups, twin(groups)[0], strict=True)])[0]).mean(0)
    twins.compare(INPFormer.create(config), twin, arrays_of, features, maps, twin.loss(groups))
