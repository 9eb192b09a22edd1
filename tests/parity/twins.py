"""What the torch twins of detectors are made of, and how they are compared; all of it independent of jaxad's layers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from torch import nn
from torch.nn import functional as F

from jaxad.nn import module_state
from jaxad.types import Batch, Features

BOUND = 1e-4


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


class MLP(nn.Sequential):
    """Two linear layers, the inner one four times as wide, with GELU between them."""

    def __init__(self, width):
        super().__init__(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


def heads_of(x, heads):
    """[b n c] -> [b heads n d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def joined(x):
    """[b heads n d] -> [b n c]."""
    return x.transpose(1, 2).flatten(2)


class PostNormLayer(nn.Module):
    """Attention to one source after the other, then a feed-forward layer, on torch's own attention."""

    def __init__(self, width, heads, hidden, sources):
        super().__init__()
        attentions = [nn.MultiheadAttention(width, heads, batch_first=True) for _ in range(sources)]
        self.attentions = nn.ModuleList(attentions)
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(sources + 1)])
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x, sources, positions, hidden=None):
        """`sources`: what each attention looks at, [b n d]; `hidden`: bool [n n], what is not seen."""
        for attention, norm, source in zip(self.attentions, self.norms, sources, strict=False):
            found = attention(x + positions, source + positions, source, attn_mask=hidden, need_weights=False)[0]
            x = norm(x + found)
        return self.norms[-1](x + self.fc2(torch.relu(self.fc1(x))))


def positions_of(rows, columns):
    """[n d] by rows: half of the channels say the column, half the row."""
    return torch.stack([torch.cat([c, r]) for r in rows for c in columns])


def lacking(pairs):
    """1 - cosine of each pair of patches, and of each pair of whole images: lists of [b n] and of scalars."""
    maps = [1 - F.cosine_similarity(*pair, dim=-1) for pair in pairs]
    return maps, [(1 - F.cosine_similarity(a.flatten(1), b.flatten(1))).mean() for a, b in pairs]


def layer_arrays(path, layer):
    """Weight and bias of a linear layer or a layer norm by the paths that jaxad gives them."""
    if isinstance(layer, nn.LayerNorm):
        return {f"{path}/scale": layer.weight, f"{path}/bias": layer.bias}
    return {f"{path}/kernel": layer.weight.T, f"{path}/bias": layer.bias}


def transformer_arrays(model):
    """Arrays of a twin of UniAD or HVQ-Trans that are of the transformer, by the paths of the detector."""
    layers = {name: getattr(model, name) for name in ("project_in", "project_out", "norm")}
    found = {"rows": model.rows, "columns": model.columns}
    for stack in ("encoder", "decoder"):
        for number, layer in enumerate(getattr(model, stack)):
            at = f"{stack}/{number}"
            layers |= {f"{at}/feed/fc1": layer.fc1, f"{at}/feed/fc2": layer.fc2}
            layers |= {f"{at}/norms/{place}": norm for place, norm in enumerate(layer.norms)}
            for place, attention in enumerate(layer.attentions):
                name = f"{at}/attentions/{place}"
                layers[f"{name}/out"] = attention.out_proj
                pieces = zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
                for part, (weight, bias) in zip(("query", "key", "value"), pieces, strict=True):
                    found |= {f"{name}/{part}/kernel": weight.T, f"{name}/{part}/bias": bias}
    return found | all_arrays(layers)


def all_arrays(layers):
    """`layer_arrays` of layers by path."""
    return {name: tensor for path, layer in layers.items() for name, tensor in layer_arrays(path, layer).items()}


def perturbed(twin, scale):
    """The twin, noise of that deviation added to all parameters, and the generator that it was drawn from."""
    generator = torch.Generator().manual_seed(0)
    for parameter in twin.parameters():
        parameter.data += scale * torch.randn(parameter.shape, generator=generator)
    return twin, generator


def arrays(twin, arrays_of):
    """The tensors that `arrays_of` finds in a twin, by path, as numpy has them."""
    return {path: tensor.detach().numpy().copy() for path, tensor in arrays_of(twin).items()}


def compare(detector, twin, arrays_of, features, maps, loss, key=None):
    """Asserts that a detector with a twin's parameters has its maps, its loss and its gradients.

    Args:
        detector: with parameters of its own, which those of the twin replace.
        twin: torch module.
        arrays_of: its tensors by the paths of the detector.
        features: on which both are compared.
        maps: the twin's, of any shape.
        loss: the twin's, a scalar with gradients.
        key: of the loss.
    """
    graphdef, trained, rest = module_state.split(detector, nnx.Param, ...)
    ours = {path: jnp.asarray(array) for path, array in arrays(twin, arrays_of).items()}
    assert {path: array.shape for path, array in ours.items()} == {p: a.shape for p, a in trained.items()}
    assert error(judged(module_state.merge(graphdef, rest | ours), features).reshape(maps.shape), maps) < BOUND

    def loss_of(params):
        return module_state.merge(graphdef, rest | params).loss(features, jax.random.key(0) if key is None else key)[0]

    value, gradients = jax.jit(jax.value_and_grad(loss_of))(ours)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=BOUND)
    for parameter in twin.parameters():
        parameter.data = parameter.grad
    expected = arrays(twin, arrays_of)
    # A bias of keys moves all logits of a query alike: its gradient is zero but for rounding.
    compared = [path for path in gradients if not path.endswith("/key/bias")]
    assert max(error(gradients[path], expected[path]) for path in compared) < BOUND


def judged(detector, features: Features):
    """Anomaly maps of images of which nothing but features is known."""
    count = len(features.tokens)
    return np.asarray(
        detector.judge(features, Batch({}, np.zeros(count, np.uint32), np.ones(count, bool)), np.zeros(count)).maps
    )
