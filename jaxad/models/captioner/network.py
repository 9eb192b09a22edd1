"""InternVL: images and a question in, an answer out; its networks and how they are loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.models.captioner.checkpoints import HEADS, LAYOUTS, UNUSED
from jaxad.models.captioner.config import CaptionerConfig, DecoderConfig
from jaxad.models.captioner.config_files import read_config, with_preprocessor
from jaxad.models.captioner.decoder import Decoder
from jaxad.models.captioner.tower import Projector, Tower
from jaxad.models.weights.key_map import choose_key_map, fill
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state
from jaxad.types import Array

OUTPUTS = 8
"""Of what the width of 16-bit products is a multiple on GPUs."""


class InternVL(nnx.Module):
    """Tower, projector and decoder.

    Args:
        config: their shapes.
        dtype: compute type, which kernels and embeddings have too.
    """

    def __init__(self, config: CaptionerConfig, *, dtype: Any = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.tower = Tower(config.tower, dtype=dtype, rngs=rngs)
        self.projector = Projector(config.tower.width, config.shrink, config.decoder.width, dtype=dtype, rngs=rngs)
        self.decoder = Decoder(config.decoder, dtype=dtype, rngs=rngs)

    def see(self, tiles: Array) -> jax.Array:
        """What the decoder reads of images.

        Args:
            tiles: uint8 [b t h w 3].

        Returns:
            float32 [b t*n c] with n = `config.tile_tokens`. One tile of each image is seen at a time.
        """
        tiles = jnp.asarray(tiles)

        def of_tile(number: jax.Array) -> jax.Array:
            tile = jax.lax.dynamic_index_in_dim(tiles, number, axis=1, keepdims=False)
            return self.projector(self.tower(self.config.normalization(tile)))

        seen = jax.lax.map(of_tile, jnp.arange(tiles.shape[1]))
        return seen.swapaxes(0, 1).reshape(len(tiles), -1, seen.shape[-1])

    def embed(self, ids: Array, is_image: Array, tiles: Array) -> jax.Array:
        """Embeddings of questions about images.

        Args:
            ids: token ids, int [b n].
            is_image: which of them stand for the image, bool [b n].
            tiles: of the images, uint8 [b t h w 3]; what a row does not have places for is left out.

        Returns:
            float32 [b n c].
        """
        seen = self.see(tiles)
        numbers = jnp.clip(jnp.cumsum(is_image, axis=1) - 1, 0, seen.shape[1] - 1)
        image = jnp.take_along_axis(seen, numbers[:, :, None], axis=1)
        return jnp.where(is_image[:, :, None], image, self.decoder.embed(ids))


def abstract_internvl(config: CaptionerConfig, dtype: Any = jnp.float32) -> InternVL:
    """The network's structure without arrays, to be filled."""
    return module_state.abstract(lambda rngs: InternVL(config, dtype=dtype, rngs=rngs))


def config_of(weights: Weights) -> CaptionerConfig:
    """The network that `weights` hold, by their config.json and preprocessor_config.json.

    Raises:
        WeightsError: another architecture, settings that these networks do not have, or the config of other weights.
    """
    with weights.reading():
        headless = not any(name in weights.tensors for name in HEADS)
        config = read_config(weights.config, headless=headless)
        config = with_preprocessor(config, weights.preprocessor)
        weights.check_blocks(config.tower.depth + config.decoder.depth)
    return config


def load_internvl(
    weights: Weights, dtype: Any = jnp.float32, place: Callable[[np.ndarray], Any] = jnp.asarray
) -> InternVL:
    """An InternVL 2, 2.5 or 3 of OpenGVLab's repositories or of transformers' files.

    Args:
        weights: what `find_weights` found.
        dtype: compute type; kernels and embeddings are kept in it.
        place: puts each parameter where it belongs as soon as it is read; memory holds one besides.

    Raises:
        WeightsError: the weights are no InternVL, or do not fit their config.
    """
    config = config_of(weights)
    with weights.reading():
        _, key_map = choose_key_map(weights, LAYOUTS)
        return fill(abstract_internvl(config, dtype), weights, key_map, ignore=UNUSED, place=place)


def filled_up(arrays: Mapping[str, Any], config: DecoderConfig) -> dict[str, Any]:
    """Arrays of which the kernel of the logits is filled up with zeros, to as many outputs as products on GPUs have.

    Programs would else make such a copy of it, of 0.8 GB in InternVL2-8B, for each token. Logits are the same.

    Args:
        arrays: of a network by path, or their shapes alone.
        config: of its decoder, with v words.

    Returns:
        All of them; the kernel [c v] of the head, or the table [v c] of a network that has none, with v rounded up to a
        multiple of `OUTPUTS`.
    """
    path, axis = ("decoder/tokens", 0) if config.tied else ("decoder/head/kernel", 1)
    more = [(0, -config.vocabulary % OUTPUTS if axis == number else 0) for number in range(2)]
    table = arrays[path]
    is_shape = isinstance(table, jax.ShapeDtypeStruct)
    return {
        **arrays,
        path: jax.eval_shape(partial(jnp.pad, pad_width=more), table) if is_shape else jnp.pad(table, more),
    }
