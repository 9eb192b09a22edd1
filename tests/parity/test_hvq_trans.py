"""HVQ-Trans against a torch implementation on torch's own attention."""

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
from jaxad.detectors.hvq_trans import HVQTrans
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
CHANNELS, WIDTH, HEADS, HIDDEN, SIDE, DEPTH, ENTRIES, TRANSPORT = 32, 16, 2, 24, 5, 3, 11, 4.0


class TorchLayer(nn.Module):
    def __init__(self, width, attentions):
        super().__init__()
        self.attentions = nn.ModuleList(
            [nn.MultiheadAttention(width, HEADS, batch_first=True) for _ in range(attentions)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(attentions + 1)])
        self.fc1, self.fc2 = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, width)

    def forward(self, x, positions, memory=None):
        for attention, norm, other in zip(self.attentions, self.norms, (None, memory), strict=False):
            source = x if other is None else other
            x = norm(x + attention(x + positions, source + positions, source, need_weights=False)[0])
        return self.norms[-1](x + self.fc2(torch.relu(self.fc1(x))))


class TorchHVQTrans(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.rand(SIDE, WIDTH // 2)) for _ in range(2))
        self.project_in, self.project_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(2 * WIDTH, CHANNELS)
        self.encoder = nn.ModuleList([TorchLayer(WIDTH, 1) for _ in range(DEPTH)])
        self.decoder = nn.ModuleList([TorchLayer(2 * WIDTH, 2) for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(2 * WIDTH)
        sizes = [WIDTH] + [2 * WIDTH] * DEPTH
        self.books = nn.ParameterList([nn.Parameter(torch.randn(ENTRIES, size)) for size in sizes])

    def forward(self, x):
        """Tokens [b n c] -> restored, transport, and what features and entries are apart, once for either side."""
        positions = torch.stack([torch.cat([c, r]) for r in self.rows for c in self.columns])
        outputs = [self.project_in(x)]
        for layer in self.encoder:
            outputs.append(layer(outputs[-1], positions))
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
            y = layer(y, torch.cat([positions, positions], -1), memory)
        return self.project_out(self.norm(y)), (likely * cost).sum(-1), commitment, chase


def arrays_of(model):
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {"rows": model.rows, "columns": model.columns, "top/vectors": model.books[0]}
    found |= {f"codebooks/{number}/vectors": book for number, book in enumerate(model.books[1:])}
    linears = {"project_in": model.project_in, "project_out": model.project_out}
    norms = {"norm": model.norm}
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, stack)):
            at = f"{stack}/{number}"
            linears |= {f"{at}/feed/fc1": layer.fc1, f"{at}/feed/fc2": layer.fc2}
            norms |= {f"{at}/norms/{place}": norm for place, norm in enumerate(layer.norms)}
            for place, attention in enumerate(layer.attentions):
                name = f"{at}/attentions/{place}"
                linears[f"{name}/out"] = attention.out_proj
                pieces = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
                for part, (weight, bias) in zip(("query", "key", "value"), pieces, strict=True):
                    found |= {f"{name}/{part}/kernel": weight.T, f"{name}/{part}/bias": bias}
    for path, layer in linears.items():
        found |= {f"{path}/kernel": layer.weight.T, f"{path}/bias": layer.bias}
    for path, norm in norms.items():
        found |= {f"{path}/scale": norm.weight, f"{path}/bias": norm.bias}
    return {path: tensor.detach().numpy().copy() for path, tensor in found.items()}


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def test_maps_loss_and_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    twin = TorchHVQTrans()
    for parameter in twin.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
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
    graphdef, trained, rest = module_state.split(HVQTrans.create(config), nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    x = torch.randn(3, SIDE**2, CHANNELS, generator=generator)
    features = Features(x.numpy(), (SIDE, SIDE))
    restored, transport, commitment, chase = twin(x)
    expected = ((restored - x).norm(dim=-1) + TRANSPORT * transport).detach().numpy()
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool))
    judged = module_state.merge(graphdef, rest | ours).judge(features, batch, np.zeros(3))
    assert error(np.asarray(judged.maps).reshape(3, -1), expected) < BOUND

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(features, jax.random.key(0))[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    total = F.mse_loss(restored, x) + 0.25 * commitment + chase
    total.backward()
    assert float(value) == pytest.approx(total.item(), rel=BOUND)
    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays_of(twin)
    # A bias of keys moves all logits of a query alike: its gradient is zero but for rounding.
    compared = [path for path in gradients if not path.endswith("/key/bias")]
    assert max(error(gradients[path], expected[path]) for path in compared) < BOUND
