"""ViTAD against a torch implementation on torch's own encoder layers."""

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
from jaxad.detectors.vitad import ViTAD
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
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
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {"positions": model.positions}
    linears = {"fusion": model.fusion}
    for number, layer in enumerate(model.decoder):
        at = f"decoder/{number}"
        linears |= {f"{at}/fc1": layer.linear1, f"{at}/fc2": layer.linear2, f"{at}/out": layer.self_attn.out_proj}
        found |= {f"{at}/qkv/kernel": layer.self_attn.in_proj_weight.T, f"{at}/qkv/bias": layer.self_attn.in_proj_bias}
        for name, norm in (("norm1", layer.norm1), ("norm2", layer.norm2)):
            found |= {f"{at}/{name}/scale": norm.weight, f"{at}/{name}/bias": norm.bias}
    for path, layer in linears.items():
        found |= {f"{path}/kernel": layer.weight.T, f"{path}/bias": layer.bias}
    return {path: tensor.detach().numpy().copy() for path, tensor in found.items()}


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def test_maps_loss_and_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    twin = TorchViTAD()
    for parameter in twin.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    config = jaxad.ViTADConfig(
        backbone=f"random:{WIDTH}x5",
        image_size=14 * SIDE,
        blocks=(0, 1, 2),
        neck=(3, 4),
        heads=HEADS,
        depth=DEPTH,
    )
    graphdef, trained, rest = module_state.split(ViTAD.create(config), nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    blocks = torch.randn(5, 3, SIDE**2, WIDTH, generator=generator)
    features = Features(np.concatenate(blocks.numpy(), -1), (SIDE, SIDE))
    restored = twin(torch.cat([blocks[3], blocks[4]], -1))
    pairs = [*zip(blocks[:3], restored, strict=True)]
    expected = sum(1 - F.cosine_similarity(*pair, dim=-1) for pair in pairs).detach().numpy()
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool))
    judged = module_state.merge(graphdef, rest | ours).judge(features, batch, np.zeros(3))
    assert error(np.asarray(judged.maps).reshape(3, -1), expected) < BOUND

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
