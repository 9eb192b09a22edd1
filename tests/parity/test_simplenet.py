"""SimpleNet against a torch implementation on torch's own batch norm."""

from __future__ import annotations

import copy

import jax
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import jaxad
from jaxad.detectors.simplenet import SimpleNet
from jaxad.types import Features
from tests.parity import twins

pytestmark = pytest.mark.parity

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
    """Tensors of the torch model by the paths of the detector."""
    return {
        "adaptor/kernel": model.adaptor.weight.T,
        "discriminator/hidden/kernel": model.hidden.weight.T,
        "discriminator/scale": model.norm.weight,
        "discriminator/bias": model.norm.bias,
        "discriminator/tail/kernel": model.tail.weight.T,
    }


def test_maps_loss_and_gradients_are_those_of_torch():
    twin, generator = twins.perturbed(TorchSimpleNet(), 0.2)
    config = jaxad.SimpleNetConfig(backbone=f"random:{CHANNELS}x2", image_size=14 * SIDE, hidden=HIDDEN, noise=NOISE)
    tokens = torch.randn(3, SIDE**2, CHANNELS, generator=generator) * (1 + torch.arange(CHANNELS) / 8) + 1
    features, model = Features(tokens.numpy(), (SIDE, SIDE)), SimpleNet.create(config)
    model.prepare([features])

    x = averaged(tokens).flatten(0, 1)
    x = x / x.std(0, correction=0)
    key = jax.random.key(1)
    noise = NOISE * torch.tensor(np.asarray(jax.random.normal(key, tokens.shape))).flatten(0, 1)
    loss = twin.loss(x, noise)

    # Running statistics over many draws of the noise, as the norm would have them of a long training at that point.
    with torch.no_grad():
        later = copy.deepcopy(twin).eval()
        adapted = later.adaptor(x)
        clean = later.hidden(adapted)
        spread = NOISE**2 * later.hidden.weight.square().sum(1)
        later.norm.running_mean.copy_(clean.mean(0))
        later.norm.running_var.copy_(clean.var(0, correction=0) + spread / 2)
        maps = -later.scores(adapted).reshape(3, SIDE, SIDE)
    twins.compare(model, twin, arrays_of, features, maps, loss, key)
