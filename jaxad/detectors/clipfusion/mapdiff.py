"""MapDiff: what Stable Diffusion says of an image's parts by prompts and by references (arXiv 2506.11772).

One pass of the UNet for each timestep and state of an image that a map needs, in one call or in chunks that fit the
memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.patchclip import Terms
from jaxad.diffusion.schedule import add_noise, scaled_linear_schedule
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import LAYERS, UNet
from jaxad.nn.platforms import target_platform
from jaxad.nn.precision import compute_dtype
from jaxad.nn.rows import own_rows
from jaxad.types import Array

_STATE_TEXTS = {"text": "queries", "places": "places", "used": "used"}
"""What a pair of image and state has of the texts."""
_SCHEDULE = scaled_linear_schedule()
"""Stable Diffusion's."""


Passes = Mapping[str, Array]
"""What passes of the UNet gave, by `name_of` timestep and place: attention [b h w k] of sites, features [b n c] of
stages."""


class Call(NamedTuple):
    """One call of the UNet: its timesteps, the cross-attentions that all of them give, and (timestep, stage) of the
    features."""

    timesteps: tuple[int, ...]
    sites: tuple[str, ...]
    stages: tuple[tuple[int, str], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What it adds to `Passes`."""
        return tuple(
            name_of(t, place)
            for t, place in (*((t, site) for t in self.timesteps for site in self.sites), *self.stages)
        )


def joined(calls: Iterable[Call]) -> Call:
    """One call that gives all that several give, each timestep once."""
    calls = list(calls)
    parts = ([getattr(call, field) for call in calls] for field in Call._fields)
    return Call(*(tuple(dict.fromkeys(one for own in part for one in own)) for part in parts))


def name_of(timestep: int, place: str) -> str:
    """The name in `Passes` of what a pass gives at a site or a stage."""
    return f"{timestep} {place}"


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
        return self.fitting(self.calls(True, True))

    def fitting(self, calls: Iterable[Call]) -> int:
        """Pairs of image and prompt that fit the memory of the devices, all together, in each of some UNet calls."""
        item = 2 if compute_dtype(self.config.precision) == "bfloat16" else 4
        passes = int(self.config.memory_gb * 1e9) // max(_pass_bytes(self._unet, self.grid, item), 1)
        return max(passes // max(len(call.timesteps) for call in calls), 1) * _devices()

    def latents(self, vae: AutoencoderKL, images: Array, seed: Array) -> jax.Array:
        """Scaled latents float32 [b h w 4] of uint8 images, without noise; `seed` [b] of those that are sampled."""

        def each(batch: dict[str, jax.Array]) -> jax.Array:
            moments = vae.encode(batch["images"].astype(jnp.float32) / 127.5 - 1)
            if self.config.latents == "sample":
                return moments.sample(jax.vmap(jax.random.key)(batch["seed"]))
            return moments.mean

        found = chunked(each, {"images": jnp.asarray(images), "seed": jnp.asarray(seed)}, self.at_once)
        return found * vae.config.scaling_factor

    def noise(self, latents: Array, seed: Array) -> jax.Array:
        """What latents [b h w 4] are noised with, drawn from `seed` [b]."""

        def draw(seed: Array) -> jax.Array:
            # Beside the key by which the latents themselves are sampled.
            return jax.random.normal(jax.random.fold_in(jax.random.key(seed), 1), jnp.shape(latents)[1:])

        return jax.vmap(draw)(jnp.asarray(seed))

    def terms(
        self,
        unet: UNet | None,
        images: Mapping[str, Any],
        texts: Mapping[str, Array],
        banks: Sequence[Array],
        which: Array,
        language: bool,
    ) -> Terms:
        """Maps and scores (Eq. 6, 8, 10, 11).

        Args:
            unet: the network; None where the passes are given.
            images: "latents" [b h w 4], scaled, and "noise" of that shape where they are to be noised. In their place
                "passes", the `Passes` [b s ...] that `queries` gave, and "reference_passes" [b ...] of `reference`.
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
            attention, scaled, distances = self.states(unet, images, texts, searched, which, language)
            if language:
                map = maps.normalized(attention, config.attention_norm) if scaled is None else scaled
                found["language"] = maps.resize(map, size)
                focus = map if config.attention_score == "scaled" else attention
                scores["language"] = maps.concentration(maps.resize(focus, size))
        if banks and own_prompt:
            taps = self.references(unet, images, texts["reference"])
            distances = self._distances(taps, banks, which)
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
        unet: UNet | None,
        images: Mapping[str, Any],
        texts: Mapping[str, Array],
        banks: Sequence[Array],
        which: Array,
        language: bool,
    ) -> tuple[jax.Array, jax.Array | None, list[jax.Array]]:
        """The passes of all states of each image, or of those that are needed; arguments as of `terms`.

        Returns:
            Attention [b h w] (zeros if not wanted), the same in another scale or None (see `state_attention`), and
            distances to the references [b n] for each tap.
        """
        config, weights = self.config, jnp.asarray(texts["weights"])
        b, s = weights.shape

        def run(first: int, last: int, vision: bool, shares: jax.Array) -> dict[str, Any]:
            """Means over some of the states: of attention by `weights`, of distances by `shares` [b s]."""

            def each(pair: dict[str, jax.Array]) -> dict[str, Any]:
                """Attention and distances of pairs of image and state [p ...]."""
                probabilities, taps = self._run(unet, pair, pair["text"], language, vision)
                found: dict[str, Any] = {"far": self._distances(taps, banks if vision else [], pair["which"])}
                if language:
                    found["attention"], found["scaled"] = maps.state_attention(
                        probabilities,
                        pair["places"],
                        pair["used"],
                        self.grid,
                        config.subtokens,
                        config.attention_norm,
                        config.attention_norm_of,
                    )
                return found

            def of_states(array: Array) -> jax.Array:
                """[b s ...] -> [p ...]."""
                part = jnp.asarray(array)[:, first:last]
                return part.reshape(-1, *part.shape[2:])

            own = {**_seen(images), "which": jnp.asarray(which)}
            pairs: dict[str, Any] = {name: jnp.repeat(array, last - first, axis=0) for name, array in own.items()}
            pairs |= {name: of_states(texts[of]) for name, of in _STATE_TEXTS.items()}
            if "passes" in images:
                pairs["passes"] = jax.tree.map(of_states, images["passes"])
            found = chunked(each, pairs, self.at_once)

            def mean(values: jax.Array, weights: jax.Array) -> jax.Array:
                values = values.reshape(b, last - first, *values.shape[1:])
                return jnp.einsum("bs,bs...->b...", weights[:, first:last], values, precision="highest")

            return {
                "far": [mean(distance, shares) for distance in found.pop("far")],
                **{name: None if value is None else mean(value, weights) for name, value in found.items()},
            }

        if banks and config.vision_prompt == "last-state":
            # What fills up a category's states is its last one again, so that the last row is always the last state.
            found = run(s - 1, s, True, jnp.ones_like(weights))
            if language and s > 1:
                others = run(0, s - 1, False, weights)
                found |= {name: jax.tree.map(jnp.add, found[name], others[name]) for name in ("attention", "scaled")}
        else:
            found = run(0, s, bool(banks), weights)
        if not language:
            return jnp.zeros((b, *self.grid), jnp.float32), None, found["far"]
        return found["attention"], found["scaled"], found["far"]

    def references(self, unet: UNet | None, images: Mapping[str, Any], text: Array) -> list[jax.Array]:
        """Features of each tap [b n c] with a prompt of its own for each image, [b k d], and no states."""

        def each(images: dict[str, jax.Array]) -> list[jax.Array]:
            return self._run(unet, images, images["text"], False, True)[1]

        given = {"passes": images["reference_passes"]} if "reference_passes" in images else {}
        return chunked(each, {**_seen(images), **given, "text": jnp.asarray(text)}, self.at_once)

    def _distances(self, taps: Sequence[Array], banks: Sequence[Array], which: Array) -> list[jax.Array]:
        """Distances [b n] of each tap's features to the references."""
        chunk = self.config.chunk
        return [maps.reference_distance(tap, bank, which, chunk) for tap, bank in zip(taps, banks, strict=True)]

    def _run(
        self, unet: UNet | None, images: Mapping[str, Any], text: jax.Array, language: bool, vision: bool
    ) -> tuple[dict[str, jax.Array], list[jax.Array]]:
        """Attention [b h w k] by site, averaged over timesteps, and features [b n c] by tap; no deeper than needed."""
        passes = images.get("passes")
        if passes is None:
            assert unet is not None
            passes = self.passes(unet, images, text, self.calls(language, vision))
        steps, attention = tuple(dict.fromkeys(self.config.language_timesteps)), {}
        for site in self.sites if language else ():
            attention[site] = jnp.stack([jnp.asarray(passes[name_of(t, site)]) for t in steps]).mean(0)
        taps = self.config.diffusion_taps if vision else ()
        return attention, [jnp.asarray(passes[name_of(t, self._stage(block))]) for t, block in taps]

    def passes(
        self, unet: UNet, images: Mapping[str, Array], text: Array, calls: Iterable[Call]
    ) -> dict[str, jax.Array]:
        """What calls of the UNet give of images, as of `terms`, with a prompt of its own for each, [b k d]."""
        found, b = {}, len(text)
        for call in calls:
            count = len(call.timesteps)

            def each_time(array: Array, count: int = count) -> jax.Array:
                """An image's rows side by side, so that devices keep their images."""
                return _spread(jnp.repeat(jnp.asarray(array), count, axis=0))

            timesteps = jnp.tile(jnp.array(call.timesteps), b)
            several = {name: each_time(array) for name, array in _seen(images).items()}
            _, outputs, probabilities = unet(
                self._inputs(several, timesteps),
                timesteps,
                each_time(text),
                taps=sorted({stage for _, stage in call.stages}),
                attention_sites=call.sites,
                output=False,
            )
            for site, every in probabilities.items():
                own = _spread(every).reshape(b, count, *every.shape[1:])
                found |= {name_of(t, site): own[:, number] for number, t in enumerate(call.timesteps)}
            for t, stage in call.stages:
                own = _spread(outputs[stage]).reshape(b, count, -1, outputs[stage].shape[-1])
                found[name_of(t, stage)] = own[:, call.timesteps.index(t)]
        return found

    def _inputs(self, images: Mapping[str, jax.Array], timesteps: jax.Array) -> jax.Array:
        """What the UNet takes of latents [b h w 4] at timesteps [b]: for inpainting with an empty mask, [z, 0, z].

        An empty mask hides nothing, so that the masked image is the image itself. With "noise", the first z is noised.
        """
        latents = noised = images["latents"]
        if "noise" in images:
            noised = add_noise(latents, images["noise"], _SCHEDULE.alpha_bar_at(timesteps))
        if self.channels == latents.shape[-1]:
            return noised
        return jnp.concatenate([noised, jnp.zeros_like(latents[..., :1]), latents], axis=-1)

    def calls(self, language: bool, vision: bool) -> list[Call]:
        """One call for the timesteps whose attention is wanted, and one for the further ones of each depth; none of
        them twice."""
        blocks: dict[int, list[int]] = {}
        for t, block in self.config.diffusion_taps if vision else ():
            blocks.setdefault(t, []).append(block)

        def call(steps: tuple[int, ...], sites: tuple[str, ...]) -> Call:
            return Call(steps, sites, tuple((t, self._stage(block)) for t in steps for block in blocks.get(t, ())))

        first = tuple(dict.fromkeys(self.config.language_timesteps)) if language else ()
        depths = {t: max(own) for t, own in blocks.items() if t not in first}
        calls = [call(first, self.sites)] if language else []
        for depth in sorted(set(depths.values())):
            calls.append(call(tuple(t for t, deepest in depths.items() if deepest == depth), ()))
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
    """`function` of arrays [p ...] (and of trees of them), at most `size` rows at once; each device keeps its rows."""
    count = len(jax.tree.leaves(arrays)[0])
    devices = 1 if count % _devices() else _devices()
    each, most = count // devices, max(size // devices, 1)
    steps = -(-each // most)
    rows = -(-each // steps)

    def spread(arrays: Any) -> Any:
        return jax.tree.map(_spread, function(jax.tree.map(_spread, arrays)))

    def split(array: jax.Array) -> jax.Array:
        """[p ...] -> [steps, devices x rows, ...], each device's filled up by its own."""
        own = array.reshape(devices, each, *array.shape[1:])
        filling = jnp.repeat(own[:, :1], rows * steps - each, axis=1)
        own = jnp.concatenate([own, filling], axis=1).reshape(devices, steps, rows, *array.shape[1:])
        return own.swapaxes(0, 1).reshape(steps, devices * rows, *array.shape[1:])

    def join(array: jax.Array) -> jax.Array:
        own = array.reshape(steps, devices, rows, *array.shape[2:]).swapaxes(0, 1)
        return own.reshape(devices, steps * rows, *array.shape[2:])[:, :each].reshape(count, *array.shape[2:])

    if steps == 1:
        return spread(arrays)
    return jax.tree.map(join, jax.lax.map(spread, jax.tree.map(split, arrays)))


def _devices() -> int:
    """How many the program is made for."""
    return max(jax.sharding.get_abstract_mesh().size, 1)


def _spread(rows: jax.Array) -> jax.Array:
    """Rows [b ...] of which each device has its own, where they divide evenly."""
    return rows if len(rows) % _devices() else own_rows(rows)


def _seen(images: Mapping[str, Array]) -> dict[str, jax.Array]:
    """What the UNet sees of images: latents, and noise where there is some."""
    return {name: jnp.asarray(images[name]) for name in ("latents", "noise") if name in images}


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
