"""What detectors have in common that restore parts of a ViT's features and measure cosines: features, loss and map."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.detector import InputSpec, PatchDetector, Trainable
from jaxad.metrics import protocol
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import ViT
from jaxad.nn.attention import attention_heads
from jaxad.nn.cosine import cosine
from jaxad.types import Array, Batch, Explanation, Features, Judgement

SCORE = dataclasses.replace(protocol("dinomaly"), canvas=None)
"""Dinomaly's published way from map to image score, of the whole image."""


class CosineDetector(PatchDetector, Trainable):
    """A detector that restores patches of a ViT's blocks and measures cosines. Abstract; `restore` is not written.

    Attributes:
        blocks: those that are restored, shallow ones first.
        inputs_only: those that are seen and not restored.
        leading: whether class and register tokens are seen too.
        over_parts: sum or mean, what makes one loss and one map of those of all parts.
    """

    inputs_only: tuple[int, ...] = ()
    leading: ClassVar[bool] = False
    over_parts: ClassVar[Any] = staticmethod(jnp.sum)

    def __init__(self, config: Any, backbone: Backbone | None = None, *, rngs: nnx.Rngs | None = None):
        super().__init__(config, backbone, rngs=rngs)
        self.blocks = tuple(sorted(self.blocks))

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what is restored, shallow ones first."""
        return tuple(f"block_{block}" for block in self.blocks)

    @property
    def heads(self) -> int:
        """Attention heads of the layers that are trained."""
        return self.config.heads or attention_heads(self.channels)

    def misfits(self) -> list[str]:
        """Backbones that are no ViT, and `heads` that do not divide its width."""
        problems, heads = [], getattr(self.config, "heads", None)
        if not isinstance(self.backbone.network, ViT):
            problems.append(f"backbone = {self.config.backbone}: must be a Vision Transformer")
        if heads and self.channels % heads:
            problems.append(f"heads = {heads}: must divide the width {self.channels}")
        return problems

    @property
    def inputs(self) -> InputSpec:
        spec = super().inputs
        return dataclasses.replace(spec, identity=(spec.identity, self.parts, self.inputs_only, self.leading))

    def encode(self, batch: Batch) -> Features:
        """The patches of all parts side by side, then of `inputs_only`: tokens [b n s*c].

        Where they are seen, class and registers are the extra "leading" [b 1+r s*c].
        """
        network, blocks = self.backbone.network, (*self.blocks, *self.inputs_only)
        tokens = network.grouped(self.backbone.normalization(batch.images["image"]), blocks, self._count)
        patches = network.patches(tokens)
        extras = {"leading": tokens[:, : tokens.shape[1] - patches.shape[1]]} if self.leading else {}
        return Features(patches, self.grid, extras)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean over images of 1 - cosine of all of an image's features at once, of all parts together."""
        return self._compared(self.split(features), self.restore(features))

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """1 - cosine of every patch and its reconstruction, of all parts together, on the token grid."""
        return self._judged(features, self.restore(features))

    def restore(self, features: Features) -> list[jax.Array]:
        """The patches of each part as the detector makes them: [b n c] each."""
        raise TypeError(f"{type(self).__name__} does not restore")

    def split(self, features: Features) -> list[jax.Array]:
        """What `encode` put side by side: [b n c] for each part, then for each of `inputs_only`."""
        tokens = jnp.asarray(features.tokens, jnp.float32)
        wanted = (None, features.grid[0] * features.grid[1], self._count * self.channels)
        chex.assert_shape(tokens, wanted, custom_message="features.tokens must be [b n s*c]")
        return jnp.split(tokens, self._count, axis=-1)

    @property
    def _count(self) -> int:
        return len(self.parts) + len(self.inputs_only)

    def _compared(self, seen: Sequence[Array], restored: Sequence[Array]) -> tuple[Array, dict[str, Array]]:
        """The loss of parts [b n c] as `split` gives and as they are restored, and its terms."""
        flat = [[x.reshape(len(x), -1) for x in pair] for pair in zip(seen[: len(self.parts)], restored, strict=True)]
        losses = [(1 - cosine(*pair)).mean() for pair in flat]
        return self.over_parts(jnp.stack(losses)), dict(zip(self.parts, losses, strict=True))

    def _judged(self, features: Features, restored: Sequence[Array]) -> Judgement:
        targets = self.split(features)[: len(self.parts)]
        maps = jnp.stack([1 - cosine(*pair) for pair in zip(targets, restored, strict=True)])
        maps = self.over_parts(maps, axis=0).reshape(-1, *features.grid)
        before, after = (jnp.concatenate(arrays, -1).reshape(*maps.shape, -1) for arrays in (targets, restored))
        return Judgement(maps, explanation=Explanation(before, after))


class GroupDetector(CosineDetector):
    """A detector that restores the means of `config.groups` groups of blocks. Abstract."""

    over_parts: ClassVar[Any] = staticmethod(jnp.mean)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the groups, shallow ones first."""
        return tuple(f"group_{number + 1}" for number in range(self.config.groups))

    def misfits(self) -> list[str]:
        """Those of all, and `groups` that do not divide the blocks."""
        problems, groups = super().misfits(), self.config.groups
        if len(self.blocks) % groups:
            problems.append(f"blocks = {self.blocks}: their number must be a multiple of groups = {groups}")
        return problems

    def _judged(self, features: Features, restored: Sequence[Array]) -> Judgement:
        judgement = super()._judged(features, restored)
        scores = SCORE.postprocess(judgement.maps)[1] if self.config.score == "top" else None
        return dataclasses.replace(judgement, scores=scores)
