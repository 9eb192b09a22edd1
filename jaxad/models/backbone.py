"""The frozen feature network of a detector: uint8 images in, patch features out."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad import config, module_state
from jaxad.errors import ConfigError
from jaxad.models import embedded
from jaxad.models.positions import Interpolation
from jaxad.models.vit import ViT, ViTConfig, abstract_vit, load_vit
from jaxad.models.weights import find_weights
from jaxad.types import Array

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DType = Literal["float32", "bfloat16"]


class Backbone(nnx.Module):
    """A frozen network as detectors use it; its arrays are ordinary nnx.Param variables.

    Attributes:
        network: the Vision Transformer.
        id: the name it was loaded by.
        sha256: hash of its weight files, "" for random weights.
        bytes: size of its weight files, of its parameters for random weights.
        dtype: compute type; features are float32 in any case.
        width: feature channels c.
        depth: number of blocks.
        patch: side of a patch in pixels.
    """

    def __init__(self, network: ViT, *, id: str, sha256: str, bytes: int, dtype: DType):
        self.network = network
        self.id, self.sha256, self.bytes = id, sha256, bytes
        self.dtype: DType = dtype
        self.width, self.depth, self.patch = network.config.width, network.config.depth, network.config.patch

    @classmethod
    def random(cls, shape: ViTConfig, key: jax.Array, *, id: str = "random", dtype: DType = "float32") -> Backbone:
        """An untrained backbone, for tests and for experiments that need one.

        Drawn by numpy, because compiling the network's own initialisers takes seconds.
        """
        graphdef, parameters = module_state.split(abstract_vit(shape, jnp.dtype(dtype)))
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        arrays = {}
        for path, parameter in parameters.items():
            gain = path.endswith(("/scale", "/gain"))
            deviation = math.prod(parameter.shape[:-1]) ** -0.5 if path.endswith("/kernel") else 0.02
            arrays[path] = jnp.asarray(generator.normal(1.0 * gain, deviation, parameter.shape), parameter.dtype)
        bytes = sum(array.nbytes for array in arrays.values())
        return cls(module_state.merge(graphdef, arrays), id=id, sha256="", bytes=bytes, dtype=dtype)

    def features(self, images: Array, blocks: tuple[int, ...]) -> jax.Array:
        """Patch tokens averaged over `blocks`, without final norm; blocks above the deepest of them do not run.

        Args:
            images: uint8 [b h w 3], both sides multiples of the patch; ImageNet normalisation happens here.
            blocks: block numbers counted from 0.

        Returns:
            float32 [b n c].

        Raises:
            ConfigError: a block or an image size that this network cannot have.

        Source: SPEC 3.1, Eq. 9.
        """
        mean, std = (np.array(values, np.float32).reshape(1, 1, 1, 3) for values in (IMAGENET_MEAN, IMAGENET_STD))
        tapped = self.network.taps((jnp.asarray(images, jnp.float32) / 255 - mean) / std, blocks)
        tokens = [self.network.patches(tap).astype(jnp.float32) for tap in tapped.values()]
        return functools.reduce(jnp.add, tokens) / len(tokens)

    def select_blocks(self, blocks: tuple[int, ...] | None) -> tuple[int, ...]:
        """The blocks to average: those given, or from half the depth to the last (SPEC 27).

        Raises:
            ConfigError: a block that this network does not have.
        """
        if blocks is None:
            return tuple(range(self.depth // 2, self.depth))
        if strangers := [block for block in blocks if not 0 <= block < self.depth]:
            raise ConfigError(f"blocks = {blocks}: {self.id} has blocks 0 to {self.depth - 1}, not {strangers}")
        return blocks

    def grid(self, image_size: int | tuple[int, int]) -> tuple[int, int]:
        """Rows and columns (h, w) of the features of an image of that side, or that (height, width), in pixels.

        Raises:
            ConfigError: a side that is no multiple of the patch.
        """
        return self.network.grid((image_size, image_size) if isinstance(image_size, int) else image_size)

    def config_json(self) -> dict[str, Any]:
        """All that `backbone_from_config` needs, as JSON-ready values."""
        return {
            "network": "vit",
            "shape": config.to_json(self.network.config),
            "dtype": self.dtype,
            "id": self.id,
            "sha256": self.sha256,
            "bytes": self.bytes,
        }


def load_backbone(
    name: str,
    *,
    dtype: DType = "float32",
    revision: str | None = None,
    interpolation: Interpolation | None = None,
) -> Backbone:
    """The pretrained backbone of that name.

    Args:
        name: a local folder in Hugging Face layout, a hub id, "embedded" for the ViT-S/14 of the `demo` extra, or
            "random:WIDTHxDEPTH" or "random:WIDTHxDEPTHxPATCH" for an untrained one (always the same), for tests.
        dtype: compute type; parameters are float32.
        revision: branch, tag or commit on the hub.
        interpolation: how positions are resized, None for the way of the network's authors (SPEC 6.1).

    Raises:
        WeightsError: there are no such weights, or they do not fit their network.
        ConfigError: a malformed "random:" name.
    """
    if name.startswith("random:"):
        return Backbone.random(_random_shape(name), jax.random.key(0), id=name, dtype=dtype)
    weights = embedded.embedded_weights() if name == embedded.NAME else find_weights(name, revision)
    network = load_vit(weights, jnp.dtype(dtype), interpolation)
    return Backbone(network, id=weights.id, sha256=weights.sha256, bytes=weights.bytes, dtype=dtype)


def backbone_from_config(values: Mapping[str, Any], *, dtype: DType | None = None) -> Backbone:
    """The backbone that `Backbone.config_json` describes, without arrays; a checkpoint fills it (DESIGN 4.9).

    Args:
        values: what `config_json` gave.
        dtype: compute type in place of the recorded one.

    Raises:
        ConfigError: values that `config_json` does not give.
    """
    wanted = {"network", "shape", "dtype", "id", "sha256", "bytes"}
    if values.keys() != wanted or values["network"] != "vit":
        raise ConfigError(f"backbone config {sorted(values)}: needs exactly {sorted(wanted)}, with network = 'vit'")
    compute: DType = dtype or values["dtype"]
    network = abstract_vit(config.from_json(ViTConfig, values["shape"]), jnp.dtype(compute))
    return Backbone(network, id=values["id"], sha256=values["sha256"], bytes=values["bytes"], dtype=compute)


def _random_shape(name: str) -> ViTConfig:
    match = re.fullmatch(r"random:(\d+)x(\d+)(?:x(\d+))?", name)
    if not match or 0 in (numbers := [int(number) for number in match.groups("14")]):
        raise ConfigError(f"backbone {name!r}: needs to be random:WIDTHxDEPTH or random:WIDTHxDEPTHxPATCH")
    width, depth, patch = numbers
    heads = width // 16 if width % 16 == 0 else 1
    return ViTConfig(width, depth, heads, patch, image_size=16 * patch, hidden=4 * width)
