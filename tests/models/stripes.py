"""A stranger's backbone: linear patches, mixed in as many blocks as one likes. It knows only what jaxad documents."""

from __future__ import annotations

import re
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.models.family import Family, register_backbone
from jaxad.models.weights.key_map import Leaf, fill
from jaxad.nn import module_state
from jaxad.nn.normalization import Normalization


@dataclass(frozen=True)
class StripesConfig:
    width: int = 6
    depth: int = 2


class StripesNetwork(nnx.Module):
    patch = 8

    def __init__(self, config, *, dtype, rngs):
        self.config, self.depth = config, config.depth
        self.stem = nnx.Linear(3 * 8 * 8, config.width, use_bias=False, dtype=dtype, rngs=rngs)
        sizes = [(config.width, config.width)] * config.depth
        self.mixers = nnx.List([nnx.Linear(*size, use_bias=False, dtype=dtype, rngs=rngs) for size in sizes])

    def features(self, images, blocks):
        b, h, w, _ = images.shape
        x = jnp.reshape(images, (b, h // 8, 8, w // 8, 8, 3)).transpose(0, 1, 3, 2, 4, 5)
        x, outputs = self.stem(x.reshape(b, h * w // 64, -1)), []
        for mixer in self.mixers:
            x = jax.nn.relu(mixer(x))
            outputs.append(x)
        return jnp.concatenate([outputs[block] for block in blocks], axis=-1).astype(jnp.float32)

    def features_width(self, blocks):
        return self.config.width * len(blocks)

    def usual_blocks(self, part=None):
        return (self.depth - 1,)

    def maps(self, images, stages=None):
        b, h, w, _ = images.shape
        return [self.features(images, (self.depth - 1,)).reshape(b, h // 8, w // 8, -1)]


def _stem(tensor):
    return tensor.transpose(2, 3, 1, 0).reshape(-1, len(tensor))


KEY_MAP = (
    ("stem", "stem", {"kernel": Leaf(".w", _stem)}),
    ("mixers/{}", "mixers.{}", {"kernel": Leaf(".w", np.transpose)}),
)


@register_backbone
class Stripes(Family):
    name = "stripes"
    config = StripesConfig
    random_names = ("stripes-DEPTH",)

    @staticmethod
    def abstract(config, dtype):
        return module_state.abstract(lambda rngs: StripesNetwork(config, dtype=dtype, rngs=rngs))

    @staticmethod
    def recognizes(weights):
        return "stem.w" in weights.tensors

    @staticmethod
    def load(weights, dtype, interpolation):
        depth = sum(name.startswith("mixers.") for name in weights.tensors)
        config = StripesConfig(weights.tensors["stem.w"].shape[0], depth)
        return fill(Stripes.abstract(config, dtype), weights, KEY_MAP)

    @staticmethod
    def normalization(weights, network):
        return Normalization((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))

    @staticmethod
    def random(name):
        match = re.fullmatch(r"stripes-(\d+)", name)
        return StripesConfig(depth=int(match[1])) if match else None
