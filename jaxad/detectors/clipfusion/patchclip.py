"""PatchCLIP: what CLIP says of an image's parts by prompts and by references (arXiv 2506.11772, Eq. 1, 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion import maps as maps
from jaxad.models.clip.config import VisionConfig
from jaxad.models.clip.dense import text_relevance, value_patches, window_embeddings
from jaxad.models.clip.towers import VisionTower
from jaxad.types import Array

Terms = tuple[dict[str, jax.Array], dict[str, jax.Array]]
"""Maps [b s s] and scores [b] of one model by modality, "language" and "vision"."""


class PatchCLIP:
    """CLIP's half of CLIPFusion, and its baselines CLIP-AC, MaskCLIP and WinCLIP.

    Args:
        config: settings.
        tower: shape of the image tower.

    Attributes:
        problems: settings that this tower cannot have.
        size: side of the images in pixels.
        grid: rows and columns of the patches.
        banks: names of the features that are compared with references, "block 5" by number from 0, "window 2" by side.
    """

    def __init__(self, config: CLIPFusionConfig, tower: VisionConfig):
        self.config, self.depth = config, tower.depth
        self.size = config.clip_image_size or tower.image_size
        self.grid = (self.size // tower.patch, self.size // tower.patch)
        self.blocks = tuple(_block_number(block, tower.depth) for block in config.clip_blocks)
        self.windows = config.windows if config.clip_map == "windows" else ()
        self.banks = [f"block {block}" for block in self.blocks] + [f"window {side}" for side in self.windows]
        self.problems = []
        if self.size % tower.patch:
            self.problems.append(f"clip_image_size = {self.size}: must be a multiple of the {tower.patch} px patch")
        numbers = [number for number in config.clip_blocks if isinstance(number, int)]
        if strangers := [number for number in numbers if not 1 <= abs(number) <= tower.depth]:
            self.problems.append(f"clip_blocks: CLIP has blocks 1 to {tower.depth}, not {strangers}")
        if config.clip_block_path == "attended" and tower.depth - 1 in self.blocks:
            self.problems.append('clip_blocks: the last block has none behind it, as clip_block_path "attended" needs')
        if config.vv_blocks is not None and config.vv_blocks > tower.depth:
            self.problems.append(f"vv_blocks = {config.vv_blocks}: CLIP has {tower.depth} blocks")
        if self.windows and max(self.windows) > self.grid[0]:
            self.problems.append(f"windows = {self.windows}: larger than the {self.grid[0]} patches of a side")

    def features(self, tower: VisionTower, images: Array) -> dict[str, jax.Array]:
        """All that does not depend on prompts.

        Args:
            tower: the image tower.
            images: uint8 [b size size 3].

        Returns:
            "class" [b d] and "patches" [b n d] in the space shared with texts, and the features named in `banks`; for
            `clip_map` "relevance" also "pixels", what the tower sees.
        """
        config = self.config
        pixels = tower.config.normalization(images)
        two_paths = "vv" in (config.clip_map, config.clip_block_path)
        vv_blocks = self.depth if config.vv_blocks is None else config.vv_blocks
        path = "vv" if config.clip_block_path == "vv" else "original"
        output = tower(pixels, taps=set(self.blocks), vv_blocks=vv_blocks if two_paths else 0, tapped_path=path)
        taps = output.taps
        if config.clip_block_path == "attended":
            taps = {block: tower.blocks[block + 1].attended(tokens) for block, tokens in taps.items()}
        found: dict[str, Any] = {f"block {block}": tower.patches(taps[block]) for block in self.blocks}
        for side in self.windows:
            found[f"window {side}"] = window_embeddings(tower, pixels, maps.window_patches(self.grid, side))
        patches = value_patches(tower, pixels) if config.clip_map == "value" else output.patches
        found |= {"class": output.embedding, "patches": patches}
        if config.clip_map == "relevance":
            found["pixels"] = pixels
        return found

    def language(
        self, tower: VisionTower, features: Mapping[str, Array], texts: Array, scale: Array
    ) -> tuple[jax.Array, jax.Array]:
        """Patches [b n] and score [b] by prompts.

        Args:
            tower: the image tower.
            features: from `features`.
            texts: [b 2 d], of unit length: normal, abnormal.
            scale: of the cosines, from the checkpoint; `config.temperature` goes before it.
        """
        config = self.config
        if config.temperature is not None:
            scale = jnp.float32(1 / config.temperature)
        image = maps.abnormality(jnp.asarray(features["class"])[:, None], texts, scale)
        everywhere = jnp.broadcast_to(image, (len(image), self.grid[0] * self.grid[1]))
        if config.clip_map == "class":
            patches = everywhere
        elif config.clip_map == "relevance":
            patches = text_relevance(tower, features["pixels"], texts[:, 1])
        elif self.windows:
            found = {side: maps.abnormality(features[f"window {side}"], texts, scale) for side in self.windows}
            if config.window_means == "normality":
                by_side = [maps.harmonic_patches(1 - scores, self.grid, side) for side, scores in found.items()]
                patches = 1 - maps.harmonic_mean(by_side)
            else:
                by_side = [maps.harmonic_patches(scores, self.grid, side) for side, scores in found.items()]
                patches = maps.harmonic_mean([everywhere, *by_side])
        else:
            patches = maps.abnormality(features["patches"], texts, scale)
        return patches, image[:, 0]

    def vision(self, features: Mapping[str, Array], banks: Sequence[Array], which: Array) -> jax.Array:
        """Patches [b n] by references: `banks` [g k c] of the features of those names, `which` [b] of each image."""
        distances = []
        joined = maps.harmonic_patches if self.config.window_means == "abnormality" else maps.mean_patches
        for name, bank in zip(self.banks, banks, strict=True):
            distance = maps.reference_distance(features[name], bank, which, self.config.chunk)
            kind, number = name.split()
            distances.append(joined(distance, self.grid, int(number)) if kind == "window" else distance)
        return jnp.stack(distances).mean(0)

    def resized(self, patches: jax.Array) -> jax.Array:
        """Patches [b n] as a map [b s s] of side `output_size`."""
        return maps.resize(patches.reshape(-1, *self.grid), (self.config.output_size, self.config.output_size))


def _block_number(block: int | float, depth: int) -> int:
    """The number from 0 of a block that is named by number from 1 or -1, or by its share of the depth."""
    if isinstance(block, float):
        return math.ceil(block * depth) - 1
    return block - 1 if block > 0 else depth + block
