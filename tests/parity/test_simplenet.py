"""SimpleNet against a torch implementation on torch's own batch norm."""

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
from jaxad.detectors.simplenet import SimpleNet
from jaxad.nn import module_state
from jaxad.types import Batch, Features

pytestmark = pytest.mark.parity

BOUND = 1e-4
CHANNELS, HIDDEN, SIDE, NOISE = 32, 24, 5, 0.3


class TorchSimpleNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.adaptor = nn.Linear(CHANNELS, CHANNELS)
        self.hidden = nn.Linear(CHANNELS, HIDDEN)
        self.norm = nn.BatchNorm1d(HIDDEN, momentum=1.0)
        self.tail = nn.Linear(HIDDEN, 1, bias=False)

    def scores(self, x):
        return self.tail(F.leaky_relu(self.norm(self.hidden(x)), 0.2))[:, 0]

    def loss(self, x, noise):
        adapted = self.adaptor(x)
        scores = self.scores(torch.cat([adapted, adapted + noise]))
        normal, anomalous = scores.chunk(2)
        return (0.5 - normal).clip(min=0).mean() + (anomalous + 0.5).clip(min=0).mean()


def averaged(tokens):
    """Means over 3 x 3 patches [b n c], of what lies in the image."""
    maps = tokens.transpose(1, 2).unflatten(-1, (SIDE, SIDE))
    return F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False).flatten(2).transpose(1, 2)


def arrays_of(model):
    """Arrays of the torch model (or their gradients, put in its place) by the paths of the detector."""
    found = {
        "adaptor/kernel": model.adaptor.weight.T,
        "discriminator/hidden/kernel": model.hidden.weight.T,
        "discriminator/scale": model.norm.weight,
        "discriminator/bias": model.norm.bias,
        "discriminator/tail/kernel": model.tail.weight.T,
    }
    return {path: tensor.detach().numpy().copy() for path, tensor in found.items()}


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def test_maps_loss_and_gradients_are_those_of_torch():
    generator = torch.Generator().manual_seed(0)
    twin = TorchSimpleNet()
    for parameter in twin.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    config = jaxad.SimpleNetConfig(backbone=f"random:{CHANNELS}x2", image_size=14 * SIDE, hidden=HIDDEN, noise=NOISE)
    model = SimpleNet.create(config)
    tokens = torch.randn(3, SIDE**2, CHANNELS, generator=generator) * (1 + torch.arange(CHANNELS) / 8) + 1
    features = Features(tokens.numpy(), (SIDE, SIDE))
    model.prepare([features])
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays_of(twin).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}

    x = averaged(tokens).flatten(0, 1)
    x = x / x.std(0, correction=0)
    key = jax.random.key(1)
    noise = NOISE * torch.tensor(np.asarray(jax.random.normal(key, tokens.shape))).flatten(0, 1)
    expected = twin.loss(x, noise)
    expected.backward()

    def loss(params):
        return module_state.merge(graphdef, rest | params).loss(features, key)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss))(ours)
    assert float(value) == pytest.approx(expected.item(), rel=BOUND)

    # Running statistics over many draws of the noise, as the norm would have them of a long training at that point.
    with torch.no_grad():
        adapted = twin.adaptor(x)
        clean = twin.hidden(adapted)
        spread = NOISE**2 * twin.hidden.weight.square().sum(1)
        twin.norm.running_mean.copy_(clean.mean(0))
        twin.norm.running_var.copy_(clean.var(0, correction=0) + spread / 2)
        expected = -twin.eval().scores(adapted).reshape(3, SIDE, SIDE).numpy()
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool))
    judged = module_state.merge(graphdef, rest | ours).judge(features, batch, np.zeros(3))
    assert error(judged.maps, expected) < BOUND

    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays_of(twin)
    assert max(error(gradients[path], expected[path]) for path in gradients) < BOUND
