"""INP-Former: normal prototypes drawn from the image itself restore its features (arXiv 2503.02424).

image -> frozen ViT: means of groups of blocks -> mean of these -> prototypes, by attention of few learned tokens
                                                                -> bottleneck -> decoder that mixes prototypes alone:
mean of its last blocks, shallow ones restored; mean of its first, deep ones restored                   map = 1 - cosine
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import INPFormerConfig
from jaxad.detector import InputSpec, PatchDetector, Trainable, register
from jaxad.detectors.dinomaly import SCORE, group_means
from jaxad.errors import ConfigError
from jaxad.memory.cosine import cosine, unit
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import ViT
from jaxad.nn.activations import gelu
from jaxad.nn.attention import attention
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Batch, Explanation, Features, Judgement


@register
class INPFormer(PatchDetector, Trainable):
    """Reconstruction of grouped features from prototypes of the same image; one for many categories.

    Make one with `INPFormer.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "inp-former"
    title: str = "INP-Former"
    config_class: ClassVar[type] = INPFormerConfig

    def __init__(self, config: INPFormerConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        self.blocks = tuple(sorted(self.blocks))
        width, heads = self.channels, config.heads or max(self.channels // 64, 1)
        _check_fit(config, self.backbone, self.blocks, heads, width)
        options: dict[str, Any] = {"dtype": compute_dtype(config.precision), "rngs": rngs}
        hidden = round(width * config.mlp_ratio)
        self.tokens = nnx.Param(jax.random.normal(rngs.params(), (config.prototypes, width)))
        self.extractor = Extractor(width, heads, hidden, **options)
        self.bottleneck = FeedForward(width, hidden, **options)
        self.decoder = nnx.List([DecoderBlock(width, heads, hidden, **options) for _ in range(config.depth)])

    @property
    def inputs(self) -> InputSpec:
        spec = super().inputs
        return dataclasses.replace(spec, identity=(spec.identity, "groups", self.config.groups))

    def encode(self, batch: Batch) -> Features:
        """The mean of each group of blocks, side by side: tokens [b n g*c]."""
        network = self.backbone.network
        taps = network.taps(self.backbone.normalization(batch.images["image"]), self.blocks)
        blocks = [network.patches(taps[block]).astype(jnp.float32) for block in self.blocks]
        return Features(jnp.concatenate(group_means(blocks, self.config.groups), axis=-1), self.grid)

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """Mean over groups and images of 1 - cosine of all of an image's features at once, hard points pulling more;
        and the distance of patches to their nearest prototype."""
        config, targets = self.config, self._targets(features)
        x, prototypes = self.prototypes(targets)
        losses = []
        for target, found in zip(targets, self.restore(x, prototypes), strict=True):
            found = with_mining(target, found, config.mining)
            flat = (array.reshape(len(array), -1) for array in (target, found))
            losses.append((1 - cosine(*flat)).mean())
        coherence = (1 - similarity(x, prototypes).max(-1)).mean()
        terms = {f"group_{number + 1}": loss for number, loss in enumerate(losses)}
        return jnp.stack(losses).mean() + config.coherence * coherence, {**terms, "coherence": coherence}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """1 - cosine of every patch and its reconstruction, averaged over the groups, on the token grid."""
        targets = self._targets(features)
        x, prototypes = self.prototypes(targets)
        restored = self.restore(x, prototypes)
        maps = jnp.stack([1 - cosine(*pair) for pair in zip(targets, restored, strict=True)]).mean(0)
        maps = maps.reshape(-1, *features.grid)
        before, after = (jnp.concatenate(arrays, -1).reshape(*maps.shape, -1) for arrays in (targets, restored))
        near = jnp.moveaxis(similarity(x, prototypes), -1, 1).reshape(len(maps), -1, *features.grid)
        names = tuple(f"INP {number + 1}" for number in range(self.config.prototypes))
        scores = SCORE.postprocess(maps)[1] if self.config.score == "top" else None
        return Judgement(maps, scores, Explanation(before, after, near, names))

    def prototypes(self, groups: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """The mean of the groups' features [b n c], and the prototypes [b k c] that are drawn from it."""
        x = jnp.stack(groups).mean(0)
        tokens = jnp.broadcast_to(self.tokens[...][None], (len(x), *self.tokens.shape))
        return x, self.extractor(tokens, x)

    def restore(self, x: jax.Array, prototypes: jax.Array) -> list[jax.Array]:
        """Each group's patches as the decoder makes them of features and prototypes: g times [b n c].

        Args:
            x: mean of the groups' features, [b n c].
            prototypes: [b k c].
        """
        x, outputs = self.bottleneck(x), []
        for block in self.decoder:
            x = block(x, prototypes)
            outputs.append(x)
        return group_means(outputs[::-1], self.config.groups)

    def _targets(self, features: Features) -> list[jax.Array]:
        tokens, groups = jnp.asarray(features.tokens, jnp.float32), self.config.groups
        wanted = (None, features.grid[0] * features.grid[1], groups * self.channels)
        chex.assert_shape(tokens, wanted, custom_message="features.tokens must be [b n g*c]")
        return jnp.split(tokens, groups, axis=-1)


class FeedForward(nnx.Module):
    """Two linear layers with GELU between them, [b n c] -> [b n c]."""

    def __init__(self, width: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.fc1, self.fc2 = _linear(width, hidden, dtype, rngs), _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.fc2(gelu(self.fc1(x)))


class _Block(nnx.Module):
    """The layers of a block in which some tokens attend to others."""

    def __init__(self, width: int, heads: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        self.heads = heads
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-8, rngs=rngs) for _ in range(2))
        self.query, self.out = (_linear(width, width, dtype, rngs) for _ in range(2))
        self.key_value = _linear(width, 2 * width, dtype, rngs)
        self.feed = FeedForward(width, hidden, dtype=dtype, rngs=rngs)

    def _projected(self, x: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, value = jnp.split(self.key_value(self.norm1(other)), 2, axis=-1)
        return self.query(self.norm1(x)), key, value


class Extractor(_Block):
    """Learned tokens [b k c] attend to features [b n c] and become prototypes [b k c]."""

    def __call__(self, tokens: jax.Array, features: jax.Array) -> jax.Array:
        tokens = tokens + self.out(attention(*self._projected(tokens, features), self.heads))
        return tokens + self.feed(self.norm2(tokens))


class DecoderBlock(_Block):
    """Features [b n c] become mixtures of prototypes [b k c]: no path goes around the attention."""

    def __init__(self, width: int, heads: int, hidden: int, *, dtype: Any, rngs: nnx.Rngs):
        super().__init__(width, heads, hidden, dtype=dtype, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(heads, jnp.float32))

    def __call__(self, x: jax.Array, prototypes: jax.Array) -> jax.Array:
        x = self.out(self._mixed(*self._projected(x, prototypes)))
        return x + self.feed(self.norm2(x))

    def _mixed(self, *projected: jax.Array) -> jax.Array:
        """Attention with weights relu(scale x cosine) in place of a softmax, in float32."""
        query, key, value = (x.reshape(*x.shape[:2], self.heads, -1) for x in projected)
        cosines = jnp.einsum("bnhd,bkhd->bhnk", unit(query), unit(key))
        weights = nnx.relu(cosines * self.scale[...].reshape(1, -1, 1, 1))
        return jnp.einsum("bhnk,bkhd->bnhd", weights, value).reshape(projected[0].shape)


def similarity(x: jax.Array, prototypes: jax.Array) -> jax.Array:
    """Cosine of every patch [b n c] with every prototype [b k c]: [b n k]."""
    return jnp.einsum("bnc,bkc->bnk", unit(x), unit(prototypes))


def with_mining(target: Array, found: jax.Array, power: float) -> jax.Array:
    """`found` itself; the gradient of each point is multiplied by its distance over the mean, to a power.

    Args:
        target, found: [b n c]; distances are 1 - cosine, their mean is that of the batch.
        power: 0 leaves the gradient as it is.
    """
    fixed = jax.lax.stop_gradient(found)
    distance = 1 - cosine(target, fixed)
    return fixed + ((distance / distance.mean()) ** power)[..., None] * (found - fixed)


def _linear(n_in: int, n_out: int, dtype: Any, rngs: nnx.Rngs) -> Linear:
    kernel_init = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)
    return Linear(n_in, n_out, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


def _check_fit(config: INPFormerConfig, backbone: Backbone, blocks: tuple[int, ...], heads: int, width: int) -> None:
    problems = []
    if not isinstance(backbone.network, ViT):
        problems.append(f"backbone = {config.backbone}: must be a Vision Transformer")
    if len(blocks) % config.groups:
        problems.append(f"blocks = {blocks}: their number must be a multiple of groups = {config.groups}")
    if width % heads:
        problems.append(f"heads = {heads}: must divide the width {width}")
    if problems:
        raise ConfigError("\n".join(["INPFormerConfig does not fit its backbone:", *(f"  {p}" for p in problems)]))
