"""The pretrained networks that a VLMDiff starts from, and their shapes for checkpoints."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxad import module_state
from jaxad.config import VLMDiffConfig, from_json, to_json
from jaxad.errors import ConfigError
from jaxad.models.autoencoder_kl import AutoencoderKL, abstract_autoencoder, load_autoencoder
from jaxad.models.clip import TextTower, abstract_text_tower
from jaxad.models.clip_config import TextConfig
from jaxad.models.clip_loading import load_text_tower
from jaxad.models.clip_tokenizer import DEFAULT, load_tokenizer
from jaxad.models.sd_checkpoints import find_part
from jaxad.models.sd_config import AutoencoderConfig, UNetConfig
from jaxad.models.sd_unet import UNet, abstract_unet, load_unet

RANDOM = "random:"
START, END = 256, 257
"""Ids before and after a text in the vocabulary of the untrained networks, whose other ids are bytes."""


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
    def structure(self) -> dict[str, Any]:
        """Shapes and identity as JSON-ready values, for `abstract_networks`."""
        parts = {"unet": self.unet, "autoencoder": self.autoencoder, "text": self.text}
        return {**{name: to_json(part.config) for name, part in parts.items()}, "identity": list(self.identity)}


def load_networks(config: VLMDiffConfig, dtype: Any) -> Networks:
    """The pretrained networks that `config` names, or untrained ones for "random:WIDTH".

    Raises:
        WeightsError: some cannot be found, or do not fit.
        ConfigError: a malformed "random:" name.
    """
    source = config.stable_diffusion
    if source.startswith(RANDOM):
        networks = _random_networks(source, config, dtype)
        if config.autoencoder is None:
            return networks
        vae = find_part(config.autoencoder, "vae")
        return Networks(networks.unet, load_autoencoder(vae, dtype), networks.text, (vae.sha256, source))
    vae = find_part(config.autoencoder or source, "vae")
    text = find_part(source, "text_encoder")
    return Networks(
        load_unet(source, dtype, ema=config.ema, remat=config.remat),
        load_autoencoder(vae, dtype),
        load_text_tower(text, dtype),
        (vae.sha256, text.sha256),
    )


def abstract_networks(structure: Mapping[str, Any], config: VLMDiffConfig, dtype: Any) -> Networks:
    """The networks that `Networks.structure` describes, without arrays."""
    return Networks(
        abstract_unet(from_json(UNetConfig, structure["unet"]), dtype, remat=config.remat),
        abstract_autoencoder(from_json(AutoencoderConfig, structure["autoencoder"]), dtype),
        abstract_text_tower(from_json(TextConfig, structure["text"]), dtype),
        tuple(structure["identity"]),
    )


@functools.lru_cache(maxsize=2)
def tokenizer_of(source: str, tokenizer: str | None, context: int) -> Callable[[Sequence[str]], np.ndarray]:
    """What turns texts into ids int32 [b context] for the text tower of `source`.

    Raises:
        WeightsError: the tokenizer's files cannot be found.
    """
    if source.startswith(RANDOM):
        return functools.partial(_bytes_as_ids, context=context)
    if tokenizer is None:
        tokenizer = DEFAULT if Path(source).expanduser().is_file() else source
    return load_tokenizer(tokenizer, context=context)


def _bytes_as_ids(texts: Sequence[str], context: int) -> np.ndarray:
    ids = np.full((len(texts), context), END, np.int32)
    for row, text in zip(ids, texts, strict=True):
        said = [START, *text.lower().encode()[: context - 2]]
        row[: len(said)] = said
    return ids


def _random_networks(name: str, config: VLMDiffConfig, dtype: Any) -> Networks:
    width = name.removeprefix(RANDOM)
    if not width.isdecimal() or int(width) % 8 or int(width) == 0:
        raise ConfigError(f"stable_diffusion = {name!r}: needs to be {RANDOM}WIDTH, WIDTH a multiple of 8")
    width = int(width)
    unet = UNetConfig(
        block_out_channels=(width, 2 * width, 2 * width),
        layers_per_block=1,
        down_attention=(False, True, True),
        up_attention=(True, True, False),
        heads=(2, 4, 4),
        cross_attention_dim=2 * width,
        norm_num_groups=8,
    )
    vae = AutoencoderConfig(block_out_channels=(width, width, 2 * width), layers_per_block=1, norm_num_groups=8)
    text = TextConfig(2 * width, depth=2, heads=4, hidden=4 * width, vocabulary=END + 1, projection=None, end=END)
    return Networks(
        _drawn(abstract_unet(unet, dtype, remat=config.remat), 0),
        _drawn(abstract_autoencoder(vae, dtype), 1),
        _drawn(abstract_text_tower(text, dtype), 2),
        (name, name),
    )


def _drawn(network: Any, seed: int) -> Any:
    """The network with random parameters, by numpy because compiling its own initialisers takes seconds."""
    graphdef, parameters = module_state.split(network)
    generator, arrays = np.random.default_rng(seed), {}
    for path, parameter in parameters.items():
        deviation = math.prod(parameter.shape[:-1]) ** -0.5 if path.endswith("/kernel") else 0.02
        values = generator.normal(1.0 * path.endswith("/scale"), deviation, parameter.shape)
        arrays[path] = jnp.asarray(values, parameter.dtype)
    return module_state.merge(graphdef, arrays)
