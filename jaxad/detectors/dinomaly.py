"""Dinomaly: a decoder that cannot focus restores frozen features, except where they are anomalous (arXiv 2405.14325).

image -> frozen ViT: mean of its shallow blocks, mean of its deep ones -> mean of both -> bottleneck with dropout ->
decoder: mean of its last blocks, shallow ones restored; mean of its first, deep ones restored        map = 1 - cosine
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
from flax import nnx

from jaxad.config import DinomalyConfig
from jaxad.detector import InputSpec, PatchDetector, Trainable, register
from jaxad.errors import ConfigError
from jaxad.memory.cosine import cosine
from jaxad.metrics import protocol
from jaxad.models.backbone import Backbone
from jaxad.models.vit.network import ViT
from jaxad.nn.activations import gelu
from jaxad.nn.precision import Linear, compute_dtype
from jaxad.types import Array, Batch, Explanation, Features, Judgement

SCORE = dataclasses.replace(protocol("dinomaly"), canvas=None)
"""The published way from map to image score, of the whole image."""


@register
class Dinomaly(PatchDetector, Trainable):
    """Reconstruction of grouped features by a noisy bottleneck and linear attention; one for many categories.

    Make one with `Dinomaly.create(config, key=key)`; train it with `jaxad.fit`.
    """

    name: ClassVar[str] = "dinomaly"
    title: str = "Dinomaly"
    config_class: ClassVar[type] = DinomalyConfig

    def __init__(self, config: DinomalyConfig, backbone: Backbone | None = None, *, rngs: nnx.Rngs):
        super().__init__(config, backbone, rngs=rngs)
        self.blocks = tuple(sorted(self.blocks))
        heads = config.heads or max(self.channels // 64, 1)
        _check_fit(config, self.backbone, self.blocks, heads, self.channels)
        dtype, hidden = compute_dtype(config.precision), round(self.channels * config.mlp_ratio)
        self.bottleneck = Bottleneck(self.channels, hidden, config.dropout, dtype=dtype, rngs=rngs)
        self.decoder = nnx.List(
            [DecoderBlock(self.channels, heads, hidden, dtype=dtype, rngs=rngs) for _ in range(config.depth)]
        )

    @property
    def inputs(self) -> InputSpec:
        spec = super().inputs
        return dataclasses.replace(spec, identity=(spec.identity, "groups with leading tokens", self.config.groups))

    def encode(self, batch: Batch) -> Features:
        """The mean of each group of blocks, side by side: tokens [b n g*c], class and registers in `extras`."""
        taps = self.backbone.network.taps(self.backbone.normalization(batch.images["image"]), self.blocks)
        blocks = [taps[block].astype(jnp.float32) for block in self.blocks]
        tokens = jnp.concatenate(group_means(blocks, self.config.groups), axis=-1)
        leading = tokens.shape[1] - self.grid[0] * self.grid[1]
        return Features(tokens[:, leading:], self.grid, {"leading": tokens[:, :leading]})

    def loss(self, features: Features, key: Array) -> tuple[Array, dict[str, Array]]:
        """The loss after `easy_steps` steps."""
        return self.loss_at(features, key, jnp.int32(self.config.easy_steps))

    def loss_at(self, features: Features, key: Array, step: Array) -> tuple[Array, dict[str, Array]]:
        """Mean over groups and images of 1 - cosine of all of an image's features at once; easy points pull less."""
        config = self.config
        share = config.easy_share * jnp.minimum(step / config.easy_steps, 1)
        targets, restored = self._targets(features), self.restore(features, key)
        losses = []
        for target, found in zip(targets, restored, strict=True):
            found = with_easy_gradient(target, found, share, config.easy_gradient)
            flat = (array.reshape(len(array), -1) for array in (target, found))
            losses.append((1 - cosine(*flat)).mean())
        return jnp.stack(losses).mean(), {f"group_{number + 1}": loss for number, loss in enumerate(losses)}

    def judge(self, features: Features, batch: Batch, keys: Array) -> Judgement:
        """1 - cosine of every patch and its reconstruction, averaged over the groups, on the token grid."""
        targets, restored = self._targets(features), self.restore(features)
        maps = jnp.stack([1 - cosine(*pair) for pair in zip(targets, restored, strict=True)]).mean(0)
        maps = maps.reshape(-1, *features.grid)
        before, after = (jnp.concatenate(arrays, -1).reshape(*maps.shape, -1) for arrays in (targets, restored))
        scores = SCORE.postprocess(maps)[1] if self.config.score == "top" else None
        return Judgement(maps, scores, Explanation(before, after))

    def restore(self, features: Features, key: Array | None = None) -> list[jax.Array]:
        """Each group's patches as the decoder makes them: g times [b n c].

        Args:
            features: what `encode` gave.
            key: of the dropout; None for none, as in inference.
        """
        leading = jnp.asarray(features.extras["leading"], jnp.float32)
        tokens = jnp.concatenate([leading, jnp.asarray(features.tokens, jnp.float32)], axis=1)
        wanted = (None, None, self.config.groups * self.channels)
        chex.assert_shape(tokens, wanted, custom_message="features.tokens must be [b n g*c]")
        x = jnp.stack(jnp.split(tokens, self.config.groups, axis=-1)).mean(0)
        x, outputs = self.bottleneck(x, key), []
        for block in self.decoder:
            x = block(x)
            outputs.append(x[:, leading.shape[1] :])
        return group_means(outputs[::-1], self.config.groups)

    def _targets(self, features: Features) -> list[jax.Array]:
        return jnp.split(jnp.asarray(features.tokens, jnp.float32), self.config.groups, axis=-1)


class Bottleneck(nnx.Module):
    """Feed-forward layer with dropout before, between and after its two linear layers, [b n c] -> [b n c]."""

    def __init__(self, width: int, hidden: int, dropout: float, *, dtype, rngs: nnx.Rngs):
        self.rate = dropout
        self.fc1 = _linear(width, hidden, dtype, rngs)
        self.fc2 = _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array, key: Array | None = None) -> jax.Array:
        keys = [None] * 3 if key is None else jax.random.split(key, 3)
        x = gelu(self.fc1(self._dropout(x, keys[0])))
        return self._dropout(self.fc2(self._dropout(x, keys[1])), keys[2])

    def _dropout(self, x: jax.Array, key: Array | None) -> jax.Array:
        if key is None or not self.rate:
            return x
        return jnp.where(jax.random.bernoulli(key, 1 - self.rate, x.shape), x / (1 - self.rate), 0)


class DecoderBlock(nnx.Module):
    """Pre-norm transformer block with linear attention, [b n c] -> [b n c]."""

    def __init__(self, width: int, heads: int, hidden: int, *, dtype, rngs: nnx.Rngs):
        self.heads = heads
        self.norm1, self.norm2 = (nnx.LayerNorm(width, epsilon=1e-8, rngs=rngs) for _ in range(2))
        self.qkv = _linear(width, 3 * width, dtype, rngs)
        self.out = _linear(width, width, dtype, rngs)
        self.fc1 = _linear(width, hidden, dtype, rngs)
        self.fc2 = _linear(hidden, width, dtype, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        q, k, v = jnp.split(self.qkv(self.norm1(x)), 3, axis=-1)
        x = x + self.out(linear_attention(q, k, v, self.heads))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))


def linear_attention(query: Array, key: Array, value: Array, heads: int) -> jax.Array:
    """Attention with weights f(q) f(k), f = elu + 1, in place of a softmax: [b n c] each, in float32 (Eq. 5).

    It cannot attend to one token alone, and its cost grows with n, not with its square.
    """
    q, k, v = (jnp.asarray(x, jnp.float32).reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    q, k = nnx.elu(q) + 1, nnx.elu(k) + 1
    product = partial(jnp.einsum, precision="highest")
    mixed = product("bnhd,bhde->bnhe", q, product("bnhd,bnhe->bhde", k, v))
    total = product("bnhd,bhd->bnh", q, k.sum(1))
    return (mixed / total[..., None]).reshape(query.shape)


def with_easy_gradient(target: Array, found: jax.Array, share: Array | float, factor: float) -> jax.Array:
    """`found` itself; its gradient is multiplied by `factor` at the `share` of points that are nearest to `target`.

    Args:
        target, found: [b n c]; the nearest are found among all points of the batch, by the cosine.
        share: of points, 0 to 1.
        factor: of their gradient.
    """
    fixed = jax.lax.stop_gradient(found)
    distance = 1 - cosine(target, fixed)
    hard = jnp.clip(jnp.floor(distance.size * (1 - share)).astype(jnp.int32), 1, distance.size)
    least = jnp.sort(distance.reshape(-1))[distance.size - hard]
    return fixed + jnp.where(distance < least, factor, 1.0)[..., None] * (found - fixed)


def group_means(arrays: list[jax.Array], groups: int) -> list[jax.Array]:
    """The means of consecutive groups of equal size."""
    size = len(arrays) // groups
    return [jnp.stack(arrays[start : start + size]).mean(0) for start in range(0, len(arrays), size)]


def _linear(n_in: int, n_out: int, dtype, rngs: nnx.Rngs) -> Linear:
    kernel_init = nnx.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)
    return Linear(n_in, n_out, kernel_init=kernel_init, dtype=dtype, rngs=rngs)


def _check_fit(config: DinomalyConfig, backbone: Backbone, blocks: tuple[int, ...], heads: int, width: int) -> None:
    problems = []
    if not isinstance(backbone.network, ViT):
        problems.append(f"backbone = {config.backbone}: must be a Vision Transformer")
    if len(blocks) % config.groups:
        problems.append(f"blocks = {blocks}: their number must be a multiple of groups = {config.groups}")
    if width % heads:
        problems.append(f"heads = {heads}: must divide the width {width}")
    if problems:
        raise ConfigError("\n".join(["DinomalyConfig does not fit its backbone:", *(f"  {p}" for p in problems)]))
