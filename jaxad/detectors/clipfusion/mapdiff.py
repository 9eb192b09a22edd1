"""MapDiff: what Stable Diffusion says of an image's parts by prompts and by references (arXiv 2506.11772).

One pass of the UNet for each timestep and state of an image, all in one call or in chunks that fit the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.patchclip import Terms
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import LAYERS, UNet
from jaxad.nn.platforms import target_platform
from jaxad.nn.precision import compute_dtype
from jaxad.types import Array


class _Call(NamedTuple):
    """One call of the UNet: its timesteps, the cross-attentions it gives, and (tap number, timestep number, stage)."""

    timesteps: tuple[int, ...]
    sites: tuple[str, ...]
    taps: tuple[tuple[int, int, str], ...]


class MapDiff:
    """The diffusion model's half of CLIPFusion.

    Args:
        config: settings.
        autoencoder, unet: shapes of the networks.

    Attributes:
        problems: settings that these networks cannot have.
        grid: rows and columns of the latents.
        sites: the cross-attentions used.
    """

    def __init__(self, config: CLIPFusionConfig, autoencoder: AutoencoderConfig, unet: UNetConfig):
        self.config, self.channels, self._unet = config, unet.in_channels, unet
        levels, factor = len(unet.block_out_channels), 2 ** (len(autoencoder.block_out_channels) - 1)
        self.grid = (config.image_size // factor, config.image_size // factor)
        self.sites = tuple(site for site in unet.attention_sites if self._used(site, levels))
        # An up-block works on its level's grid, and its upsampler, which the last one lacks, leads to the next.
        up = 1 if config.tap_place == "block" else 0
        self._tap_grids = [_halved(self.grid, max(levels - 1 - block - up, 0)) for _, block in config.diffusion_taps]
        self.problems = []
        if config.image_size % factor:
            self.problems.append(f"image_size = {config.image_size}: must be a multiple of {factor} pixels")
        if strangers := sorted({block for _, block in config.diffusion_taps if not 0 <= block < levels}):
            self.problems.append(f"diffusion_taps: the UNet has up-blocks 0 to {levels - 1}, not {strangers}")
        if not self.sites:
            self.problems.append("attention_parts, attention_sides: the UNet has no such cross-attention")

    @property
    def at_once(self) -> int:
        """Pairs of image and state in one call of the UNet, and images in one call of the autoencoder."""
        item = 2 if compute_dtype(self.config.precision) == "bfloat16" else 4
        passes = int(self.config.memory_gb * 1e9) // max(_pass_bytes(self._unet, self.grid, item), 1)
        return max(passes // len(set(self.config.language_timesteps)), 1)

    def latents(self, vae: AutoencoderKL, images: Array, seed: Array) -> jax.Array:
        """Scaled latents float32 [b h w 4] of uint8 images, without noise; `seed` [b] of those that are sampled."""

        def each(batch: dict[str, jax.Array]) -> jax.Array:
            moments = vae.encode(batch["images"].astype(jnp.float32) / 127.5 - 1)
            if self.config.latents == "sample":
                return moments.sample(jax.vmap(jax.random.key)(batch["seed"]))
            return moments.mean

        found = chunked(each, {"images": jnp.asarray(images), "seed": jnp.asarray(seed)}, self.at_once)
        return found * vae.config.scaling_factor

    def terms(
        self,
        unet: UNet,
        latents: Array,
        texts: Mapping[str, Array],
        banks: Sequence[Array],
        which: Array,
        language: bool,
    ) -> Terms:
        """Maps and scores (Eq. 6, 8, 10, 11).

        Args:
            unet: the network.
            latents: [b h w 4], scaled.
            texts: by the names in `StateTexts`, of each image's category: "queries" [b s k d] and so on.
            banks: of references [g k c] for each tap; empty without references.
            which: int [b], each image's bank.
            language: whether prompts count.
        """
        config, size = self.config, (self.config.output_size, self.config.output_size)
        found, scores = {}, {}
        own_prompt = config.vision_prompt == "reference"
        distances: list[jax.Array] = []
        if language or (banks and not own_prompt):
            searched = [] if own_prompt else banks
            attention, again, distances = self.states(unet, latents, texts, searched, which, language)
            if language:
                map = maps.normalized(attention if again is None else again, config.attention_norm)
                found["language"] = maps.resize(map, size)
                scores["language"] = maps.concentration(maps.resize(attention, size))
        if banks and own_prompt:
            taps = self.references(unet, latents, texts["reference"])
            distances = [
                maps.reference_distance(tap, bank, which, config.chunk) for tap, bank in zip(taps, banks, strict=True)
            ]
        if distances:
            resized = [
                maps.resize(distance.reshape(-1, *grid), size)
                for distance, grid in zip(distances, self._tap_grids, strict=True)
            ]
            found["vision"] = jnp.stack(resized).mean(0)
            scores["vision"] = found["vision"].max((1, 2))
        return found, scores

    def states(
        self,
        unet: UNet,
        latents: Array,
        texts: Mapping[str, Array],
        banks: Sequence[Array],
        which: Array,
        language: bool,
    ) -> tuple[jax.Array, jax.Array | None, list[jax.Array]]:
        """The passes of all states of each image; arguments as of `terms`.

        Returns:
            Attention [b h w] (zeros if not wanted), the same for Attend-and-Excite or None (see `state_attention`), and
            distances to the references [b n] for each tap.
        """
        config = self.config
        again = language and config.attention_norm == "resoftmax"
        weights = jnp.asarray(texts["weights"])
        b, s = weights.shape

        def each(pair: dict[str, jax.Array]) -> dict[str, Any]:
            """Attention and distances of pairs of image and state [p ...]."""
            probabilities, taps = self._run(unet, pair["latents"], pair["text"], language, bool(banks))
            found: dict[str, Any] = {
                "far": [
                    maps.reference_distance(tap, bank, pair["which"], config.chunk)
                    for tap, bank in zip(taps, banks, strict=True)
                ]
            }
            if language:
                found["attention"], found["again"] = maps.state_attention(
                    probabilities, pair["places"], pair["used"], self.grid, config.subtokens, again
                )
            return found

        pairs = {
            "latents": jnp.repeat(jnp.asarray(latents), s, axis=0),
            "which": jnp.repeat(jnp.asarray(which), s, axis=0),
            **{
                name: jnp.asarray(texts[of]).reshape(b * s, *texts[of].shape[2:])
                for name, of in (("text", "queries"), ("places", "places"), ("used", "used"))
            },
        }
        found = chunked(each, pairs, self.at_once)

        def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
            return jnp.einsum("bs,bs...->b...", weights, values.reshape(b, s, *values.shape[1:]), precision="highest")

        # What fills up a category's states is its last one again, so that the last row is always the last state.
        last = jnp.zeros((b, s), jnp.float32).at[:, -1].set(1.0)
        share = last if config.vision_prompt == "last-state" else weights
        far = [mean(distance, share) for distance in found["far"]]
        if not language:
            return jnp.zeros((b, *self.grid), jnp.float32), None, far
        return mean(found["attention"], weights), mean(found["again"], weights) if again else None, far

    def references(self, unet: UNet, latents: Array, text: Array) -> list[jax.Array]:
        """Features of each tap [b n c] with a prompt of its own for each image, [b k d], and no states."""

        def each(images: dict[str, jax.Array]) -> list[jax.Array]:
            return self._run(unet, images["latents"], images["text"], False, True)[1]

        return chunked(each, {"latents": jnp.asarray(latents), "text": jnp.asarray(text)}, self.at_once)

    def _run(
        self, unet: UNet, latents: jax.Array, text: jax.Array, language: bool, vision: bool
    ) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        """Attention [b h w k] by site, averaged over timesteps, and features [b n c] by tap; no deeper than needed."""
        attention, features = {}, {}
        for call in self._calls(language, vision):
            count = len(call.timesteps)
            _, outputs, probabilities = unet(
                jnp.tile(_inputs(latents, self.channels), (count, 1, 1, 1)),
                jnp.repeat(jnp.array(call.timesteps), len(latents)),
                jnp.tile(text, (count, 1, 1)),
                taps=sorted({stage for _, _, stage in call.taps}),
                attention_sites=call.sites,
                output=False,
            )
            for site, found in probabilities.items():
                attention[site] = found.reshape(count, len(latents), *found.shape[1:]).mean(0)
            for tap, number, stage in call.taps:
                found = outputs[stage].reshape(count, len(latents), -1, outputs[stage].shape[-1])
                features[tap] = found[number]
        return attention, [features[tap] for tap in sorted(features)]

    def _calls(self, language: bool, vision: bool) -> list[_Call]:
        """One call for the timesteps whose attention is wanted, one for each further stage where features are."""
        taps = list(enumerate(self.config.diffusion_taps)) if vision else []
        calls = []
        if language:
            steps = tuple(dict.fromkeys(self.config.language_timesteps))
            own = tuple((tap, steps.index(t), self._stage(block)) for tap, (t, block) in taps if t in steps)
            calls.append(_Call(steps, self.sites, own))
            taps = [(tap, (t, block)) for tap, (t, block) in taps if t not in steps]
        for block in sorted({block for _, (_, block) in taps}):
            steps = tuple(dict.fromkeys(t for _, (t, other) in taps if other == block))
            own = tuple((tap, steps.index(t), self._stage(block)) for tap, (t, other) in taps if other == block)
            calls.append(_Call(steps, (), own))
        return calls

    def _stage(self, block: int) -> str:
        """What the UNet calls the features of an up-block."""
        return f"up_blocks.{block}{LAYERS if self.config.tap_place == 'layers' else ''}"

    def _used(self, site: str, levels: int) -> bool:
        part, _, rest = site.partition("_")
        if part not in self.config.attention_parts or self.config.attention_sides is None:
            return part in self.config.attention_parts
        number = rest.removeprefix("blocks.").partition(".")[0]
        level = {"down": lambda: int(number), "up": lambda: levels - 1 - int(number)}.get(part, lambda: levels - 1)()
        return _halved(self.grid, level)[0] in self.config.attention_sides


def chunked(function: Callable[[Any], Any], arrays: Any, size: int) -> Any:
    """`function` of arrays [p ...] (and of trees of them), at most `size` rows at once.

    Chunks take every so manieth row, so that rows spread over devices stay where they are.
    """
    count = len(jax.tree.leaves(arrays)[0])
    if count <= size:
        return function(arrays)
    steps = -(-count // size)
    rows = -(-count // steps)

    def split(array: jax.Array) -> jax.Array:
        filling = jnp.repeat(array[:1], rows * steps - count, axis=0)
        return jnp.concatenate([array, filling]).reshape(rows, steps, *array.shape[1:]).swapaxes(0, 1)

    def join(array: jax.Array) -> jax.Array:
        return array.swapaxes(0, 1).reshape(rows * steps, *array.shape[2:])[:count]

    return jax.tree.map(join, jax.lax.map(function, jax.tree.map(split, arrays)))


def _inputs(latents: jax.Array, channels: int) -> jax.Array:
    """Latents as the UNet takes them: for inpainting with an empty mask, [z, 0, z].

    An empty mask hides nothing, so that the masked image is the image itself.
    """
    if channels == latents.shape[-1]:
        return latents
    return jnp.concatenate([latents, jnp.zeros_like(latents[..., :1]), latents], axis=-1)


def _halved(grid: tuple[int, int], times: int) -> tuple[int, int]:
    """A grid after so many convolutions of stride 2, which round up."""
    rows, columns = grid
    for _ in range(times):
        rows, columns = -(-rows // 2), -(-columns // 2)
    return rows, columns


def _pass_bytes(unet: UNetConfig, grid: tuple[int, int], item: int) -> int:
    """Estimate of what one pass of one image holds: the skips, the widest layer's work, the largest attention."""
    widths = unet.block_out_channels
    tokens = [(grid[0] * grid[1]) >> (2 * level) for level in range(len(widths))]
    skips = sum((unet.layers_per_block + 1) * width * n * item for n, width in zip(tokens, widths, strict=True))
    # Before and after the softmax; only CPUs take one head at a time (`jaxad.nn.attention`).
    heads = [1] * len(tokens) if target_platform() == "cpu" else unet.heads
    attends = [down or up for down, up in zip(unet.down_attention, reversed(unet.up_attention), strict=True)]
    logits = (count * n * n * (4 + item) for count, n, has in zip(heads, tokens, attends, strict=True) if has)
    return skips + 64 * tokens[0] * widths[0] + max(logits, default=0)
