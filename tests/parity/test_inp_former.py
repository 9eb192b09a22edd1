"""INP-Former against a torch implementation, on torch's own attention where that will do."""

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
from jaxad.detectors.inp_former import INPFormer
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
WIDTH, HEADS, SIDE, DEPTH, GROUPS, PROTOTYPES = 32, 2, 5, 4, 2, 3
OURS = ("norm1", "norm2", "out", "feed/fc1", "feed/fc2")


class TorchMLP(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))


class TorchBlock(nn.Module):
    def __init__(self, decodes):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH, eps=1e-8), nn.LayerNorm(WIDTH, eps=1e-8)
        self.query, self.key_value, self.out = (nn.Linear(WIDTH, n * WIDTH) for n in (1, 2, 1))
        self.mlp = TorchMLP()
        self.scale = nn.Parameter(torch.ones(HEADS)) if decodes else None

    def forward(self, x, other):
        key, value = self.key_value(self.norm1(other)).chunk(2, -1)
        parts = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (self.query(self.norm1(x)), key, value))
        q, k, v = parts
        if self.scale is None:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            cosines = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1)
            mixed = (cosines * self.scale[:, None, None]).relu() @ v
        y = self.out(mixed.transpose(1, 2).flatten(2))
        x = y if self.scale is not None else x + y
        return x + self.mlp(self.norm2(x))


class TorchINPFormer(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Parameter(torch.randn(PROTOTYPES, WIDTH))
        self.extractor, self.bottleneck = TorchBlock(False), TorchMLP()
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
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {"extractor/queries": model.tokens}
    linears = {"bottleneck/fc1": model.bottleneck[0], "bottleneck/fc2": model.bottleneck[2]}
    names = dict(zip(OURS, ("norm", "mlp_norm", "attention_out", "mlp_in", "mlp_out"), strict=True))
    blocks = {"extractor": (model.extractor, names)}
    blocks |= {f"decoder/{i}": (block, dict(zip(OURS, OURS, strict=True))) for i, block in enumerate(model.decoder)}
    for at, (block, names) in blocks.items():
        linears |= {f"{at}/{name}": getattr(block, name) for name in ("query", "key_value")}
        linears |= {f"{at}/{names['out']}": block.out}
        linears |= {f"{at}/{names[f'feed/fc{number + 1}']}": block.mlp[2 * number] for number in range(2)}
        for name in ("norm1", "norm2"):
            norm = getattr(block, name)
            found |= {f"{at}/{names[name]}/scale": norm.weight, f"{at}/{names[name]}/bias": norm.bias}
        if block.scale is not None:
            found[f"{at}/scale"] = block.scale
    for path, layer in linears.items():
        found |= {f"{path}/kernel": layer.weight.T, f"{path}/bias": layer.bias}
    return {path: tensor.detach().numpy().copy() for path, tensor in found.items()}


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def test_maps_loss_and_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    twin = TorchINPFormer()
    for parameter in twin.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    config = jaxad.INPFormerConfig(
        backbone=f"random:{WIDTH}x4",
        image_size=14 * SIDE,
        blocks=(0, 1, 2, 3),
        heads=HEADS,
        depth=DEPTH,
        groups=GROUPS,
        prototypes=PROTOTYPES,
    )
    graphdef, trained, rest = module_state.split(INPFormer.create(config), nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    groups = torch.randn(GROUPS, 3, SIDE**2, WIDTH, generator=generator)
    features = Features(np.concatenate(groups.numpy(), -1), (SIDE, SIDE))
    restored, _ = twin(groups)
    expected = (1 - F.cosine_similarity(groups, restored, dim=-1)).mean(0).detach().numpy()
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool))
    judged = module_state.merge(graphdef, rest | ours).judge(features, batch, np.zeros(3))
    assert error(np.asarray(judged.maps).reshape(3, -1), expected) < BOUND

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(features, jax.random.key(0))[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    total = twin.loss(groups)
    total.backward()
    assert float(value) == pytest.approx(total.item(), rel=BOUND)
    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays_of(twin)
    assert max(error(gradients[path], expected[path]) for path in gradients) < BOUND
