"""The frozen feature network of a detector: uint8 images in, patch features out."""

from __future__ import annotations

from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.models.vit import ViT, load_vit
from jaxad.models.weights import find_weights
from jaxad.types import Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Backbone(nnx.Module):
    """A frozen Vision Transformer as detectors use it.

    Attributes:
        width: feature channels c.
        depth: number of blocks.
        patch: side of a patch in pixels.
        id, sha256, bytes: name, hash and size of the weights.
    """

    def __init__(self, network: ViT, *, id: str, sha256: str, bytes: int):
        self.network = network
        self.id, self.sha256, self.bytes = id, sha256, bytes
        self.width, self.depth, self.patch = network.config.width, network.config.depth, network.config.patch

    def features(self, images: Array, blocks: tuple[int, ...]) -> Array:
        """Mean over `blocks` of their patch tokens, without final norm (SPEC 3.1, Eq. 9).

        Args:
            images: uint8 [b h w 3], sides multiples of the patch.
            blocks: block numbers counted from 0.

        Returns:
            float32 [b n c].
        """
        mean, std = (np.float32(values).reshape(1, 1, 1, 3) for values in (IMAGENET_MEAN, IMAGENET_STD))
        taps = self.network.taps((jnp.asarray(images, jnp.float32) / 255 - mean) / std, blocks)
        tokens = [self.network.patches(tap).astype(jnp.float32) for tap in taps.values()]
        return sum(tokens[1:], tokens[0]) / len(tokens)

    def grid(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns (h, w) of the features of an image of that side, or of that (height, width)."""
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        return height // self.patch, width // self.patch


def load_backbone(
    name: str, *, dtype: Literal["float32", "bfloat16"] = "float32", revision: str | None = None
) -> Backbone:
    """The backbone of that name.

    Args:
        name: folder or Hugging Face id.
        dtype: compute type.
        revision: branch, tag or commit on the hub.
    """
    weights = find_weights(name, revision)
    network = load_vit(weights, jnp.dtype(dtype))
    return Backbone(network, id=weights.id, sha256=weights.sha256, bytes=weights.bytes)
