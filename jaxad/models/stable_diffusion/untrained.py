"""Small untrained networks of Stable Diffusion and CLIP, always the same: "random:WIDTH" in place of a source."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxad.errors import ConfigError
from jaxad.models.clip.config import TextConfig, VisionConfig
from jaxad.models.clip.tokenizer import CLIPTokenizer
from jaxad.models.clip.towers import TextTower, VisionTower, abstract_text_tower, abstract_vision_tower
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL, abstract_autoencoder
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import UNet, abstract_unet
from jaxad.nn import module_state

RANDOM = "random:"
START, END = 256, 257
"""Ids before and after a text in their vocabulary, whose other ids are bytes."""


def is_random(source: str) -> bool:
    """Whether a source names untrained networks."""
    return source.startswith(RANDOM)


def random_unet(
    source: str, dtype: Any = jnp.float32, *, remat: bool = False, levels: int = 3, in_channels: int = 4
) -> UNet:
    """The UNet of "random:WIDTH": WIDTH channels at the first level, twice as many and attention at the others.

    Raises:
        ConfigError: a malformed name, here and for the other networks.
    """
    width, deeper = _width(source), levels - 1
    shape = UNetConfig(
        in_channels=in_channels,
        block_out_channels=(width, *[2 * width] * deeper),
        layers_per_block=1,
        down_attention=(False, *[True] * deeper),
        up_attention=(*[True] * deeper, False),
        heads=(2, *[4] * deeper),
        cross_attention_dim=2 * width,
        norm_num_groups=8,
    )
    return _drawn(abstract_unet(shape, dtype, remat=remat), 0)


def random_autoencoder(source: str, dtype: Any = jnp.float32, *, remat: bool = False, levels: int = 3) -> AutoencoderKL:
    """The autoencoder of "random:WIDTH", of factor 4 with three levels; its scaling factor has yet to be measured."""
    width = _width(source)
    widths = (width, width, *[2 * width] * (levels - 2))
    shape = AutoencoderConfig(block_out_channels=widths, layers_per_block=1, norm_num_groups=8)
    return _drawn(abstract_autoencoder(shape, dtype, remat=remat), 1)


def random_text_tower(
    source: str, dtype: Any = jnp.float32, *, context: int = 77, projected: bool = False
) -> TextTower:
    """The text tower of "random:WIDTH", for ids of `ByteTokenizer(context)`; CLIP's is projected."""
    width = 2 * _width(source)
    shape = TextConfig(
        width,
        depth=2,
        heads=4,
        hidden=2 * width,
        vocabulary=END + 1,
        context=context,
        projection=width if projected else None,
        end=END,
    )
    return _drawn(abstract_text_tower(shape, dtype), 2)


def random_vision_tower(source: str, dtype: Any = jnp.float32) -> VisionTower:
    """CLIP's image tower of "random:WIDTH": the 15 x 15 patches of ViT-B-16-plus-240, nine blocks of WIDTH channels."""
    width = _width(source)
    shape = VisionConfig(width, depth=9, heads=4, hidden=2 * width, patch=16, image_size=240, projection=2 * width)
    return _drawn(abstract_vision_tower(shape, dtype), 3)


class ByteTokenizer(CLIPTokenizer):
    """The tokenizer of the text towers: an id for each byte of a text in lower case."""

    def __init__(self, context: int = 77):
        self.context, self.start, self.end, self.pad = context, START, END, END

    def ids(self, text: str) -> list[int]:
        return list(text.lower().encode())


def _width(source: str) -> int:
    width = source.removeprefix(RANDOM)
    if not is_random(source) or not width.isdecimal() or int(width) % 8 or int(width) == 0:
        raise ConfigError(f"{source!r}: must be {RANDOM}WIDTH, WIDTH a multiple of 8")
    return int(width)


def _drawn(network: Any, seed: int) -> Any:
    return module_state.drawn(network, np.random.default_rng(seed))
