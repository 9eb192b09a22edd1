"""The frozen networks of CLIPFusion: CLIP's image tower, and autoencoder and UNet of a Stable Diffusion."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import nnx

from jaxad.config import CLIPFusionConfig
from jaxad.errors import ConfigError
from jaxad.memory.text import StateTexts, clip_embeddings, state_texts
from jaxad.models.autoencoder_kl import AutoencoderKL, load_autoencoder
from jaxad.models.clip import VisionTower
from jaxad.models.clip_loading import load_clip, load_text_tower
from jaxad.models.clip_tokenizer import load_tokenizer
from jaxad.models.sd_checkpoints import find_part, find_stable_diffusion
from jaxad.models.sd_unet import UNet, load_unet
from jaxad.models.weights import Weights, find_weights
from jaxad.precision import compute_dtype
from jaxad.types import Array


class FusionNetworks(nnx.Module):
    """Frozen networks as `CLIPFusion` uses them; those of a model that does not judge are None.

    Attributes:
        vision: CLIP's image tower.
        logit_scale: float32 scalar, what cosines are multiplied by before the softmax.
        vae, unet: of the Stable Diffusion.
        id: where they were loaded from, as `clip=SOURCE,diffusion=SOURCE`.
        sha256: hashes of their weight files in the same form.
        bytes: size of these files.
    """

    def __init__(
        self,
        vision: VisionTower | None,
        logit_scale: Array | None,
        vae: AutoencoderKL | None,
        unet: UNet | None,
        *,
        id: str,
        sha256: str,
        bytes: int,
    ):
        self.vision, self.vae, self.unet = vision, vae, unet
        self.logit_scale = None if logit_scale is None else nnx.Param(jnp.asarray(logit_scale, jnp.float32))
        self.id, self.sha256, self.bytes = id, sha256, bytes

    def config_json(self) -> dict[str, str]:
        """Nothing: their shapes lie with the weights, which no checkpoint holds."""
        return {}


class Texts(NamedTuple):
    """What both models are told; None of a model that does not judge."""

    clip: Any
    states: StateTexts | None


def sources(config: CLIPFusionConfig, override: str | None = None) -> dict[str, str]:
    """Where each model that judges comes from.

    Args:
        config: names them.
        override: `clip=SOURCE`, `diffusion=SOURCE` or both with a comma between them, in place of the config's; what
            `FusionNetworks.id` holds.

    Raises:
        ConfigError: `override` is not of that form.
    """
    found = {name: getattr(config, name) for name in config.models}
    if override is not None:
        parts = re.split(r",(?=(?:clip|diffusion)=)", override)
        pairs = [part.partition("=") for part in parts]
        given = {name: source for name, _, source in pairs}
        if strangers := [name for name in given if name not in found or not given[name]]:
            raise ConfigError(
                f"backbone {override!r}: {', '.join(strangers)}: needs the form "
                f"{','.join(f'{name}=SOURCE' for name in found)}, or one of these"
            )
        found |= given
    return found


def load_networks(config: CLIPFusionConfig, override: str | None = None) -> FusionNetworks:
    """The networks that the config names, from `override` where it says otherwise (see `sources`).

    Raises:
        WeightsError: weights cannot be found or do not fit.
        ConfigError: weights that the config cannot be used with.
    """
    dtype = jnp.dtype(compute_dtype(config.precision))
    where = sources(config, override)
    weights: dict[str, list[Weights]] = {}
    vision = scale = vae = unet = None
    if "clip" in where:
        found = find_weights(where["clip"], prefer="open_clip")
        clip = load_clip(found, dtype)
        vision, scale, weights["clip"] = clip.vision, clip.scale(), [found]
    if "diffusion" in where:
        parts = find_stable_diffusion(where["diffusion"])
        # Never trained, so that parameters need no more digits than the products have.
        vae = load_autoencoder(parts.vae, dtype, param_dtype=dtype)
        unet = load_unet(parts.unet, dtype, param_dtype=dtype)
        weights["diffusion"] = [parts.unet, parts.vae]
        if unet.config.in_channels not in (4, 9):
            raise ConfigError(
                f"diffusion = {where['diffusion']!r}: a UNet of {unet.config.in_channels} input channels; needs 4 "
                "(latents) or 9 (inpainting)"
            )
    return FusionNetworks(
        vision,
        scale,
        vae,
        unet,
        id=",".join(f"{name}={source}" for name, source in where.items()),
        sha256=",".join(f"{name}={'+'.join(_hashes(found))}" for name, found in weights.items()),
        bytes=sum(file.stat().st_size for found in weights.values() for file in {f for w in found for f in w.files}),
    )


def embed_texts(config: CLIPFusionConfig, categories: tuple[str, ...]) -> Texts:
    """Text embeddings of the categories; the text towers are loaded for it and let go.

    Raises:
        WeightsError: text towers or tokenizers cannot be found or do not fit.
        ConfigError: prompts that are too long.
    """
    dtype = jnp.dtype(compute_dtype(config.precision))
    where = sources(config)
    clip, states = None, None
    if "clip" in where:
        weights = find_weights(where["clip"], prefer="open_clip")
        tower = load_text_tower(weights, dtype)
        tokenizer = load_tokenizer(
            config.clip_tokenizer or where["clip"], context=tower.config.context, open_clip=weights.has("visual.")
        )
        clip = clip_embeddings(tower, tokenizer, categories, config)
    if "diffusion" in where:
        tower = load_text_tower(find_part(where["diffusion"], "text_encoder"), dtype)
        tokenizer = load_tokenizer(config.diffusion_tokenizer or where["diffusion"], context=tower.config.context)
        states = state_texts(tower, tokenizer, categories, config)
    return Texts(clip, states)


def _hashes(found: list[Weights]) -> list[str]:
    """SHA-256 of each, once for networks that share a file."""
    return list({weights.files: weights.sha256 for weights in found}.values())
