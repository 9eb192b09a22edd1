"""What detectors have in common that restore several blocks of one ViT, each by itself: features, loss and map."""

from __future__ import annotations

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.detector import InputSpec, PatchDetector, Trainable
from jaxad.errors import ConfigError
from jaxad.memory.cosine import cosine
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import ViT
from jaxad.types import Array, Batch, Explanation, Features, Judgement


class StageDetector(PatchDetector, Trainable):
    """A detector that restores the patches of several blocks and measures cosines. Abstract; `restore` is not written.

    Attributes:
        blocks: those that are restored, shallow ones first.
        inputs_only: those that are seen and not restored.
    """

    inputs_only: tuple[int, ...] = ()

    def __init__(self, config: Any, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        if not isinstance(self.backbone.network, ViT):
            raise ConfigError(f"backbone = {config.backbone}: {self.name} needs a Vision Transformer")
        self.blocks = tuple(sorted(self.blocks))

    @property
    def inputs(self) -> InputSpec:
        spec = super().inputs
        return dataclasses.replace(spec, identity=(spec.identity, "side by side", self.inputs_only))

    def encode(self, batch: Batch) -> Features:
        """The patches of `blocks` side by side, then of `inputs_only`: tokens [b n s*c]."""
        wanted, network = (*self.blocks, *self.inputs_only), self.backbone.network
        taps = network.taps(self.backbone.normalization(batch.images["image"]), wanted)
        tokens = [network.patches(taps[block]).astype(jnp.float32) for block in wanted]
        return Features(jnp.concatenate(tokens, axis=-1), self.grid)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Sum over blocks of the mean over images of 1 - cosine of all of an image's features at once."""
        losses = []
        for target, found in zip(self.split(features)[: len(self.blocks)], self.restore(features), strict=True):
            flat = (array.reshape(len(array), -1) for array in (target, found))
            losses.append((1 - cosine(*flat)).mean())
        terms: dict[str, Array] = {f"block_{block}": loss for block, loss in zip(self.blocks, losses, strict=True)}
        return jnp.stack(losses).sum(), terms

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """1 - cosine of every patch and its reconstruction, summed over the blocks, on the token grid."""
        targets, restored = self.split(features)[: len(self.blocks)], self.restore(features)
        maps = jnp.stack([1 - cosine(*pair) for pair in zip(targets, restored, strict=True)]).sum(0)
        maps = maps.reshape(-1, *features.grid)
        before, after = (jnp.concatenate(arrays, -1).reshape(*maps.shape, -1) for arrays in (targets, restored))
        return Judgement(maps, explanation=Explanation(before, after))

    def restore(self, features: Features) -> list[jax.Array]:
        """The patches of each of `blocks` as the detector makes them: [b n c] each."""
        raise TypeError(f"{type(self).__name__} does not restore")

    def split(self, features: Features) -> list[jax.Array]:
        """What `encode` put side by side: [b n c] for each block."""
        tokens = jnp.asarray(features.tokens, jnp.float32)
        count = len(self.blocks) + len(self.inputs_only)
        wanted = (None, features.grid[0] * features.grid[1], count * self.channels)
        chex.assert_shape(tokens, wanted, custom_message="features.tokens must be [b n s*c]")
        return jnp.split(tokens, count, axis=-1)
