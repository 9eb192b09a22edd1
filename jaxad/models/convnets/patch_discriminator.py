"""PatchGAN's discriminator, which judges patches of an image (arXiv 1611.07004)."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.errors import WeightsError
from jaxad.models.weights.key_map import CONV, NORM, KeyMap, fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.types import Array

_EPS = 1e-5
_MOST = 16
"""Convolutions; published discriminators have 5."""
_SLOPE = 0.2
"""Slope of the activations below 0."""

CHECKPOINT = "loss.discriminator."
"""Where an autoencoder's .ckpt of latent diffusion holds the discriminator that it was trained with."""


class PatchDiscriminator(nnx.Module):
    """4x4 convolutions, the first `layers` of stride 2, with batch norm between; the last gives one logit for a patch.

    Norms take the statistics of the batch at hand, as in training, the only use of a discriminator here; running
    statistics are neither kept nor needed.

    Args:
        layers: halvings of the image.
        width: channels of the first convolution, doubled up to 8 times.
        inputs: channels of the image.
    """

    def __init__(self, layers: int = 3, width: int = 64, inputs: int = 3, *, rngs: nnx.Rngs):
        widths = [width * min(2**layer, 8) for layer in range(layers + 1)]
        strides = [2] * layers + [1]
        pairs = list(zip([inputs, *widths[:-1]], widths, strict=True))
        self.convs = nnx.List(
            [
                # The norm that follows takes a bias away again.
                _conv(n_in, n_out, stride, use_bias=layer == 0, rngs=rngs)
                for layer, ((n_in, n_out), stride) in enumerate(zip(pairs, strides, strict=True))
            ]
        )
        self.norms = nnx.List([BatchStatisticsNorm(n_out) for n_out in widths[1:]])
        self.last = _conv(widths[-1], 1, 1, use_bias=True, rngs=rngs)

    def __call__(self, images: Array) -> jax.Array:
        """[b h w 3] -> logits [b h' w' 1], higher for patches that look real."""
        chex.assert_rank(images, 4, custom_message="images must be [b h w c]")
        x = jax.nn.leaky_relu(self.convs[0](jnp.asarray(images)), _SLOPE)
        for conv, norm in zip(list(self.convs)[1:], self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), _SLOPE)
        return self.last(x)


class BatchStatisticsNorm(nnx.Module):
    """Batch norm by the mean and variance of the batch at hand, over all devices."""

    def __init__(self, width: int):
        self.scale, self.bias = nnx.Param(jnp.ones(width, jnp.float32)), nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        mean = x.mean((0, 1, 2), keepdims=True)
        variance = jnp.square(x - mean).mean((0, 1, 2), keepdims=True)
        scale, bias = (parameter[...].reshape(1, 1, 1, -1) for parameter in (self.scale, self.bias))
        return (x - mean) * jax.lax.rsqrt(variance + _EPS) * scale + bias


def _conv(n_in: int, n_out: int, stride: int, *, use_bias: bool, rngs: nnx.Rngs) -> nnx.Conv:
    return nnx.Conv(n_in, n_out, (4, 4), strides=stride, padding=1, use_bias=use_bias, rngs=rngs)


def key_map(layers: int) -> KeyMap:
    """Where each parameter lies in a file of latent diffusion, below "loss.discriminator."."""
    # A norm and an activation follow each convolution but the first, which only an activation follows.
    places = [0, *(3 * layer - 1 for layer in range(1, layers + 1))]
    return [
        *((f"convs/{layer}", f"main.{place}", CONV) for layer, place in enumerate(places)),
        *((f"norms/{layer}", f"main.{place + 1}", NORM) for layer, place in enumerate(places[1:])),
        ("last", f"main.{3 * layers + 2}", CONV),
    ]


def load_discriminator(weights: Weights) -> PatchDiscriminator:
    """The discriminator of an autoencoder's checkpoint, its shape taken from the tensors.

    Raises:
        WeightsError: it holds none, or one that does not fit.
    """
    own = weights.under(CHECKPOINT)
    with own.reading():
        kernels = [tensor for name, tensor in own.tensors.items() if name.endswith(".weight") and tensor.ndim == 4]
        if len(kernels) > _MOST:
            raise WeightsError(f"{own}: {len(kernels)} convolutions; a discriminator has at most {_MOST}")
        first = own.tensors["main.0.weight"].shape if "main.0.weight" in own.tensors else (64, 3)
        layers = max(len(kernels) - 2, 1)
        abstract = abstract_discriminator(layers, int(first[0]), int(first[1]))
        running = ("*.running_mean", "*.running_var", "*.num_batches_tracked")
        return fill(abstract, own, key_map(layers), ignore=running)


def holds_discriminator(weights: Weights) -> bool:
    """Whether an autoencoder's checkpoint brings the discriminator that it was trained with."""
    return weights.has(f"{CHECKPOINT}main.")


def new_discriminator(seed: int, layers: int = 3, width: int = 64) -> PatchDiscriminator:
    """An untrained one: kernels of deviation 0.02, gains of mean 1 and deviation 0.02, no biases."""
    graphdef, abstract = module_state.split(abstract_discriminator(layers, width))
    generator = np.random.default_rng(seed)
    arrays = {}
    for path, array in abstract.items():
        values = np.zeros(array.shape) if path.endswith("/bias") else generator.normal(0, 0.02, array.shape)
        arrays[path] = jnp.asarray(values + path.endswith("/scale"), jnp.float32)
    return module_state.merge(graphdef, arrays)


def abstract_discriminator(layers: int = 3, width: int = 64, inputs: int = 3) -> PatchDiscriminator:
    """The structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: PatchDiscriminator(layers, width, inputs, rngs=rngs))
