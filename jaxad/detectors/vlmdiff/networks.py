"""The pretrained networks that a VLMDiff starts from, and their shapes for checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxad.config import VLMDiffConfig, from_json, to_json
from jaxad.errors import ConfigError
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.loading import load_text_tower
from jaxad.models.clip.tokenizer import DEFAULT, load_tokenizer
from jaxad.models.clip.towers import TextTower, abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL, abstract_autoencoder, load_autoencoder
from jaxad.models.stable_diffusion.checkpoints import find_part, is_whole
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import UNet, abstract_unet, load_unet
from jaxad.models.stable_diffusion.untrained import (
    ByteTokenizer,
    is_random,
    random_autoencoder,
    random_text_tower,
    random_unet,
)
from jaxad.models.weights.loader import Weights


@dataclass(frozen=True)
class Networks:
    """What a VLMDiff is made of besides its backbone and its SGN.

    Attributes:
        unet, autoencoder, text: the networks.
        identity: hashes of the weights of autoencoder and text tower, on which cached features depend.
    """

    unet: UNet
    autoencoder: AutoencoderKL
    text: TextTower
    identity: tuple[str, ...]

    @property
    def factor(self) -> int:
        """Pixels of the image per latent."""
        return 2 ** (len(self.autoencoder.config.block_out_channels) - 1)

    @property
    def structure(self) -> dict[str, Any]:
        """Shapes and identity as JSON-ready values, for `abstract_networks`."""
        parts = {"unet": self.unet, "autoencoder": self.autoencoder, "text": self.text}
        return {**{name: to_json(part.config) for name, part in parts.items()}, "identity": list(self.identity)}


def load_networks(config: VLMDiffConfig, dtype: Any) -> Networks:
    """The pretrained networks that `config` names, or untrained ones for "random:WIDTH".

    Raises:
        WeightsError: some cannot be found, or do not fit.
        ConfigError: a malformed "random:" name, or an autoencoder that was finetuned on other pixels than `config`'s.
    """
    source = config.stable_diffusion
    if is_random(source):
        unet = random_unet(source, dtype, remat=config.remat)
        text, text_identity = random_text_tower(source, dtype), source
    else:
        found = find_part(source, "text_encoder")
        unet = load_unet(source, dtype, ema=config.ema, remat=config.remat)
        text, text_identity = load_text_tower(found, dtype), found.sha256
    first = config.autoencoder or source
    if is_random(first):
        return Networks(unet, random_autoencoder(first, dtype), text, (first, text_identity))
    vae = find_part(first, "vae")
    autoencoder = load_autoencoder(vae, dtype)
    _check_pixels(config.pixels, autoencoder.config.pixels, vae)
    return Networks(unet, autoencoder, text, (vae.sha256, text_identity))


def _check_pixels(asked: str, recorded: str | None, vae: Weights) -> None:
    """Raises ConfigError where an autoencoder was finetuned on another range of pixels than it is to be fed."""
    if recorded is None or asked in ("auto", recorded):
        return
    raise ConfigError(
        f"{vae.described_in[0]}: pixels = {recorded}: the autoencoder was finetuned on that range, and is to be fed "
        f"pixels = {asked}; take pixels = auto, which is the range recorded, or finetune one with pixels = {asked}"
    )


def abstract_networks(structure: Mapping[str, Any], config: VLMDiffConfig, dtype: Any) -> Networks:
    """The networks that `Networks.structure` describes, without arrays."""
    return Networks(
        abstract_unet(from_json(UNetConfig, structure["unet"]), dtype, remat=config.remat),
        abstract_autoencoder(from_json(AutoencoderConfig, structure["autoencoder"]), dtype),
        abstract_text_tower(from_json(TextConfig, structure["text"]), dtype),
        tuple(structure["identity"]),
    )


def tokenizer_of(config: VLMDiffConfig, text: TextConfig) -> Callable[[Sequence[str]], np.ndarray]:
    """What turns texts into ids int32 [b context] for a text tower.

    Raises:
        WeightsError: the tokenizer's files cannot be found.
    """
    if config.checkpoint is not None:
        return _tokenizer(config.checkpoint, config.tokenizer or DEFAULT, text)
    return _tokenizer(config.stable_diffusion, config.tokenizer, text)


@functools.lru_cache(maxsize=2)
def _tokenizer(source: str, tokenizer: str | None, text: TextConfig) -> Callable[[Sequence[str]], np.ndarray]:
    if is_random(source):
        return ByteTokenizer(text.context)
    if tokenizer is None:
        tokenizer = DEFAULT if is_whole(source) else source
    return load_tokenizer(tokenizer, context=text.context, filling=text.filling)
