"""VGG16's convolutions (arXiv 1409.1556), the features of LPIPS, with the files of torchvision and lpips."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.models.stable_diffusion.blocks import conv
from jaxad.models.weights.key_map import CONV, KeyMap, choose_key_map, fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.types import Array

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the five stages."""
DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions of the five stages."""


class VGG16(nnx.Module):
    """Five stages of 3x3 convolutions and ReLU, a 2x2 maximum between them; the classifier is left out.

    Args:
        widths: channels of each stage.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS, *, rngs: nnx.Rngs):
        stages, inputs = [], 3
        for width, depth in zip(widths, DEPTHS, strict=True):
            convs = []
            for _ in range(depth):
                convs.append(conv(inputs, width, dtype=jnp.float32, rngs=rngs))
                inputs = width
            stages.append(nnx.List(convs))
        self.stages = nnx.List(stages)

    def __call__(self, images: Array) -> list[jax.Array]:
        """Normalized images [b h w 3] -> the last ReLU of every stage, [b h w c] at strides 1, 2, 4, 8 and 16."""
        chex.assert_shape(images, (None, None, None, 3), custom_message="images must be [b h w 3]")
        x, taps = jnp.asarray(images), []
        for stage in self.stages:
            x = _halved(x) if taps else x
            for layer in stage:
                x = jax.nn.relu(layer(x))
            taps.append(x)
        return taps


def _halved(x: jax.Array) -> jax.Array:
    """Maximum of 2x2 windows; an odd last row or column is dropped, as torch does."""
    b, h, w, c = x.shape
    windows = x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c)
    return windows.max((2, 4))


def key_maps() -> dict[str, KeyMap]:
    """Where each convolution lies, by layout: of torchvision, and of LPIPS checkpoints below "net."."""
    torchvision, lpips, index = [], [], 0
    for stage, depth in enumerate(DEPTHS):
        for layer in range(depth):
            path = f"stages/{stage}/{layer}"
            torchvision.append((path, f"features.{index}", CONV))
            lpips.append((path, f"net.slice{stage + 1}.{index}", CONV))
            # A convolution and its ReLU are two modules there.
            index += 2
        # The maximum is a module too.
        index += 1
    return {"torchvision": torchvision, "lpips": lpips}


UNUSED = ("classifier.*", "lin*", "scaling_layer.*")
"""Tensors of such files that are of no use to the convolutions."""


def load_vgg16(weights: Weights) -> VGG16:
    """The network that `weights` hold, its widths taken from the tensors.

    Args:
        weights: torchvision's vgg16, or a whole LPIPS.

    Raises:
        WeightsError: weights of another network, or such that do not fit.
    """
    with weights.reading():
        _, key_map = choose_key_map(weights, key_maps())
        names = {path: f"{name}.weight" for path, name, _ in key_map}
        widths = tuple(
            weights.tensors[names[f"stages/{stage}/0"]].shape[0]
            if names[f"stages/{stage}/0"] in weights.tensors
            else width
            for stage, width in enumerate(WIDTHS)
        )
        return fill(abstract_vgg16(widths), weights, key_map, ignore=UNUSED)


def abstract_vgg16(widths: tuple[int, ...] = WIDTHS) -> VGG16:
    """The network's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: VGG16(widths, rngs=rngs))
