"""LPIPS, a learned distance between images (arXiv 1801.03924), on VGG16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.errors import WeightsError
from jaxad.models.convnets.vgg import VGG16, WIDTHS, abstract_vgg16, load_vgg16
from jaxad.models.weights.key_map import KeyMap, Leaf, fill
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.types import Array

_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
"""(image - shift) / scale is what VGG16 sees: ImageNet's statistics, for images from -1 to 1."""

CHECKPOINT = "loss.perceptual_loss."
"""Where an autoencoder's .ckpt of latent diffusion holds the LPIPS that it was trained with."""


class Linears(nnx.Module):
    """One weight for each channel of each stage; all start at 0."""

    def __init__(self, widths: tuple[int, ...]):
        self.stages = nnx.List([nnx.Param(jnp.zeros(width, jnp.float32)) for width in widths])


class LPIPS(nnx.Module):
    """Weighted squared differences of VGG16's features, each position scaled to length 1.

    Args:
        vgg: the features.
        linears: weights of the channels.
    """

    def __init__(self, vgg: VGG16, linears: Linears):
        self.vgg, self.linears = vgg, linears

    def __call__(self, first: Array, second: Array) -> jax.Array:
        """Distance [b] of images [b h w 3], -1 to 1, sides of 16 or more; sum over stages, mean over positions."""
        chex.assert_shape([first, second], (None, None, None, 3), custom_message="first and second must be [b h w 3]")
        chex.assert_equal_shape([first, second], custom_message="first and second must have one shape")
        shift, scale = (jnp.asarray(values).reshape(1, 1, 1, 3) for values in (_SHIFT, _SCALE))
        count = len(first)
        taps = self.vgg((jnp.concatenate([first, second]) - shift) / scale)
        total = jnp.zeros(count, jnp.float32)
        for tap, weight in zip(taps, self.linears.stages, strict=True):
            unit = _unit(tap)
            squares = jnp.square(unit[:count] - unit[count:]) * weight[...].reshape(1, 1, 1, -1)
            total += squares.sum(-1).mean((1, 2))
        return total


def _unit(features: jax.Array) -> jax.Array:
    # Below the square root, because its slope at 0 would make the gradient of a position without features NaN.
    length = jnp.sqrt(jnp.square(features).sum(-1, keepdims=True) + 1e-20)
    return features / (length + 1e-10)


def _channels(tensor: np.ndarray) -> np.ndarray:
    return tensor.squeeze((0, 2, 3))


LINEARS: KeyMap = (
    ("stages/{}", "lin{}.model.1", {"": Leaf(".weight", _channels, lambda array: array[None, :, None, None])}),
)


def load_lpips(vgg: str | Path | Weights, linears: str | Path | Weights | None = None) -> LPIPS:
    """LPIPS from the published files.

    Args:
        vgg: torchvision's vgg16, or a file that holds all of LPIPS, alone or below "loss.perceptual_loss." as in the
            .ckpt of an autoencoder of latent diffusion.
        linears: lpips's `vgg.pth`, the weights of the channels; None where `vgg` holds them.

    Raises:
        WeightsError: there are no such weights, or they do not fit.
    """
    found = _found(vgg)
    network = load_vgg16(found)
    own = found if linears is None else _found(linears)
    if not own.has("lin0."):
        raise WeightsError(f"{own}: no weights of LPIPS's channels (lin0.model.1.weight); name lpips's file vgg.pth")
    # "lins.0" and on are the same tensors a second time.
    unused = ("lins.*", "net.*", "features.*", "classifier.*", "scaling_layer.*")
    abstract = nnx.eval_shape(lambda: Linears(tuple(stage[0].out_features for stage in network.stages)))
    with own.reading():
        return LPIPS(network, fill(abstract, own, LINEARS, ignore=unused))


def holds_lpips(weights: Weights) -> bool:
    """Whether an autoencoder's checkpoint brings the LPIPS that it was trained with."""
    return weights.has(f"{CHECKPOINT}lin0.")


def abstract_lpips(widths: tuple[int, ...] = WIDTHS) -> LPIPS:
    """The structure without arrays, to be filled."""
    vgg: Any = abstract_vgg16(widths)
    return LPIPS(vgg, nnx.eval_shape(lambda: Linears(widths)))


def _found(source: str | Path | Weights) -> Weights:
    weights = source if isinstance(source, Weights) else find_weights(source)
    return weights.under(CHECKPOINT) if weights.has(CHECKPOINT) else weights
