"""UniAD against a torch implementation on torch's own attention."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn

import jaxad
from jaxad.detectors.uniad import UniAD
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
CHANNELS, WIDTH, HEADS, HIDDEN, GRID, DEPTH, HIDDEN_SIDE = 32, 16, 2, 24, (5, 5), 2, 3


class TorchLayer(nn.Module):
    def __init__(self, attentions):
        super().__init__()
        self.attentions = nn.ModuleList(
            [nn.MultiheadAttention(WIDTH, HEADS, batch_first=True) for _ in range(attentions)]
        )
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(attentions + 1)])
        self.fc1, self.fc2 = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.queries = nn.Parameter(torch.zeros(GRID[0] * GRID[1], WIDTH)) if attentions > 1 else None

    def forward(self, sources, positions, hidden):
        """`sources`: what each attention looks at, [b n d]; an encoder layer's own input is its query too."""
        x = sources[0] if self.queries is None else self.queries.expand_as(sources[0])
        for attention, norm, source in zip(self.attentions, self.norms, sources, strict=False):
            found = attention(x + positions, source + positions, source, attn_mask=hidden, need_weights=False)[0]
            x = norm(x + found)
        return self.norms[-1](x + self.fc2(torch.relu(self.fc1(x))))


class TorchUniAD(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows, self.columns = (nn.Parameter(torch.rand(side, WIDTH // 2)) for side in GRID)
        self.project_in, self.project_out = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CHANNELS)
        self.encoder = nn.ModuleList([TorchLayer(1) for _ in range(DEPTH)])
        self.decoder = nn.ModuleList([TorchLayer(2) for _ in range(DEPTH)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, x):
        positions = torch.stack([torch.cat([c, r]) for r in self.rows for c in self.columns])
        places = [(row, column) for row in range(GRID[0]) for column in range(GRID[1])]
        hidden = torch.tensor([[max(abs(a - c), abs(b - d)) <= HIDDEN_SIDE // 2 for c, d in places] for a, b in places])
        memory = self.project_in(x)
        for layer in self.encoder:
            memory = layer([memory], positions, hidden)
        output = memory
        for layer in self.decoder:
            output = layer([memory, output], positions, hidden)
        return self.project_out(self.norm(output))


def arrays_of(model):
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {"rows": model.rows, "columns": model.columns}
    linears = {"project_in": model.project_in, "project_out": model.project_out}
    norms = {"norm": model.norm}
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, stack)):
            at = f"{stack}/{number}"
            linears |= {f"{at}/feed/fc1": layer.fc1, f"{at}/feed/fc2": layer.fc2}
            norms |= {f"{at}/norms/{place}": norm for place, norm in enumerate(layer.norms)}
            if layer.queries is not None:
                found[f"queries/{number}"] = layer.queries
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
    twin = TorchUniAD()
    for parameter in twin.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
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
    graphdef, trained, rest = module_state.split(UniAD.create(config), nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    x = torch.randn(3, 25, CHANNELS, generator=generator)
    restored = twin(x)
    features = Features(x.numpy(), GRID)
    judged = module_state.merge(graphdef, rest | ours).judge(
        features, Batch({}, np.zeros(3, np.uint32), np.ones(3, bool)), np.zeros(3)
    )
    expected = (restored - x).norm(dim=-1).detach().numpy()
    assert error(np.asarray(judged.maps).reshape(3, -1), expected) < BOUND

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(features, jax.random.key(0))[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    total = (restored - x).square().mean()
    total.backward()
    assert float(value) == pytest.approx(total.item(), rel=BOUND)
    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays_of(twin)
    # A bias of keys moves all logits of a query alike: its gradient is zero but for rounding.
    compared = [path for path in gradients if not path.endswith("/key/bias")]
    assert max(error(gradients[path], expected[path]) for path in compared) < BOUND
