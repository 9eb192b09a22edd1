"""The frozen networks of CLIPFusion: CLIP's image tower, and autoencoder and UNet of a Stable Diffusion."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxad.config import CLIPFusionConfig, Precision, to_json
from jaxad.detector import identity_of
from jaxad.detectors.clipfusion.prompts import StateTexts, clip_embeddings, state_texts
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.clip.loading import load_clip, load_text_tower
from jaxad.models.clip.tokenizer import CLIPTokenizer, load_tokenizer
from jaxad.models.clip.towers import TextTower, VisionTower
from jaxad.models.stable_diffusion.autoencoder_kl import AutoencoderKL, load_autoencoder
from jaxad.models.stable_diffusion.checkpoints import find_part, find_stable_diffusion
from jaxad.models.stable_diffusion.unet import UNet, load_unet
from jaxad.models.stable_diffusion.untrained import (
    ByteTokenizer,
    is_random,
    random_autoencoder,
    random_text_tower,
    random_unet,
    random_vision_tower,
)
from jaxad.models.weights.loader import Weights, find_weights
from jaxad.models.weights.place import split_revision
from jaxad.nn import module_state
from jaxad.nn.precision import compute_dtype
from jaxad.nn.variables import freeze
from jaxad.types import Array

LEVELS, CONTEXT = 4, 256
"""Of untrained networks: levels of UNet and autoencoder, as many as the published taps need; and most tokens of a text,
each of which is a byte."""


TEXT_FIELDS = (
    *("models", "objects", "object_names", "precision", "clip", "clip_tokenizer", "clip_prompt", "clip_states"),
    *("prompt_mode", "diffusion", "diffusion_tokenizer", "map_prompt", "reference_prompt", "states", "class_states"),
)
"""The settings that decide on `embed_texts`."""

NEEDS = {
    "clip": "must be a CLIP's weights in one file, or a folder or hub id that holds them with their config",
    "diffusion": (
        "must hold the subfolders unet, vae, text_encoder and tokenizer, as diffusers keeps them, or be one file of "
        "all networks"
    ),
}
"""What can be named as each model."""


class FusionNetworks(nnx.Module):
    """Frozen networks as `CLIPFusion` uses them; those of a model that does not judge are None.

    Attributes:
        vision: CLIP's image tower.
        logit_scale: float32 scalar, what cosines are multiplied by before the softmax.
        vae, unet: of the Stable Diffusion.
        sources: where each model was loaded from as it was named, as pairs of name and source.
        pinned: the same with the commit of what came from the hub.
        sha256: hashes of their weight files in the form of `id`; the source itself of untrained ones.
        bytes: size of these files, and of those that came with them.
    """

    def __init__(
        self,
        vision: VisionTower | None,
        logit_scale: Array | None,
        vae: AutoencoderKL | None,
        unet: UNet | None,
        *,
        sources: Mapping[str, str],
        pinned: Mapping[str, str] = {},
        sha256: str,
        bytes: int,
    ):
        self.vision, self.vae, self.unet = vision, vae, unet
        scale = None if logit_scale is None else nnx.Param(jnp.asarray(logit_scale, jnp.float32))
        self.logit_scale: nnx.Variable[Any] | None = scale
        freeze(self)
        self.sources, self.pinned = tuple(sources.items()), tuple({**sources, **pinned}.items())
        self.sha256, self.bytes = sha256, bytes

    @property
    def id(self) -> str:
        """Where they are loaded from again, as `clip=SOURCE,diffusion=SOURCE`."""
        return ",".join(f"{name}={source}" for name, source in self.pinned)

    @property
    def hashes(self) -> dict[str, str]:
        """`sha256` by model."""
        found = (part.partition("=") for part in self.sha256.split(","))
        return {name: sha256 for name, _, sha256 in found if sha256}

    def of(self, models: Collection[str]) -> FusionNetworks:
        """The same networks, those of some of the models alone."""
        clip, diffusion = "clip" in models, "diffusion" in models
        if strangers := sorted(set(models) - {name for name, _ in self.sources}):
            raise ConfigError(f"models = {tuple(models)}: there are no networks of {', '.join(strangers)}")
        return FusionNetworks(
            self.vision if clip else None,
            self.logit_scale[...] if clip and self.logit_scale is not None else None,
            self.vae if diffusion else None,
            self.unet if diffusion else None,
            sources={name: source for name, source in self.sources if name in models},
            pinned={name: source for name, source in self.pinned if name in models},
            sha256=",".join(part for part in self.sha256.split(",") if part.partition("=")[0] in models),
            bytes=self.bytes,
        )

    @property
    def structure(self) -> dict[str, dict[str, Any]]:
        """Shapes of the networks and how they take images, as JSON-ready values by model."""
        parts = {"clip": {"vision": self.vision}, "diffusion": {"vae": self.vae, "unet": self.unet}}
        return {
            model: {name: to_json(network.config) for name, network in networks.items() if network is not None}
            for model, networks in parts.items()
        }


class Texts(NamedTuple):
    """What both models are told; None of a model that does not judge."""

    clip: Any
    states: StateTexts | None


def sources(config: CLIPFusionConfig, override: str | None = None) -> dict[str, str]:
    """Where each model that judges comes from.

    Args:
        config: names them.
        override: `clip=SOURCE`, `diffusion=SOURCE` or both with a comma between them, in place of the config's.

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


def load_networks(config: CLIPFusionConfig, override: str | None = None, saved: str | None = None) -> FusionNetworks:
    """The networks that the config names, from `override` where it says otherwise (see `sources`).

    Args:
        config: names them.
        override: as of `sources`.
        saved: `FusionNetworks.id` of those that were loaded first: the same commits are loaded again.

    Raises:
        WeightsError: weights cannot be found or do not fit.
        ConfigError: weights that the config cannot be used with.
    """
    named, before = sources(config, override), sources(config)
    # What the user names now is taken as it is; all else as it was when it was saved.
    kept = {name: source for name, source in sources(config, saved).items() if named[name] == before[name]}
    where = named | kept
    loaders, loaded = {"clip": _load_clip, "diffusion": _load_diffusion}, {}
    for name, source in where.items():
        with _named(name, source, NEEDS[name]):
            loaded[name] = loaders[name](source, config.precision)
    (vision, scale), (vae, unet) = (loaded[name].networks if name in loaded else (None, None) for name in loaders)
    return FusionNetworks(
        vision,
        scale,
        vae,
        unet,
        sources=named,
        pinned={name: _pinned(source, loaded[name].commit) for name, source in where.items()},
        sha256=",".join(f"{name}={found.sha256}" for name, found in loaded.items()),
        bytes=sum(found.bytes for found in loaded.values()),
    )


def compute_types(precision: Precision) -> dict[str, np.dtype]:
    """Types in which networks compute: "CLIP", "autoencoder" and "UNet"."""
    dtype = jnp.dtype(compute_dtype(precision))
    # One pass of it stands against twelve of the UNet, and all of them depend on its latents.
    autoencoder = jnp.dtype("float32") if precision == "auto" else dtype
    return {"CLIP": dtype, "autoencoder": autoencoder, "UNet": dtype}


def embed_texts(config: CLIPFusionConfig, categories: tuple[str, ...]) -> Texts:
    """Text embeddings of the categories; the text towers are loaded for it and let go.

    Raises:
        WeightsError: text towers or tokenizers cannot be found or do not fit.
        ConfigError: prompts that are too long.
    """
    clip, states = None, None
    for model in config.models:
        tower, tokenizer = load_text(config, model)
        if model == "clip":
            clip = clip_embeddings(tower, tokenizer, categories, config)
        else:
            states = state_texts(tower, tokenizer, categories, config)
    return Texts(clip, states)


def identities(config: CLIPFusionConfig, networks: FusionNetworks) -> dict[str, str]:
    """What the networks, text towers and tokenizers of each model are, as `Detector.weight_hashes`.

    Raises:
        WeightsError: text towers or tokenizers cannot be found or do not fit.
    """
    found = {}
    for model in config.models:
        tower, tokenizer = load_text(config, model)
        text = {"config": to_json(tower.config), "sha256": module_state.digest(tower)}
        structure = {**networks.structure[model], "text": text}
        found[model] = identity_of(model, networks.hashes.get(model, ""), structure)
        ids = np.asarray(tokenizer(["", "a photo of a metal nut; its thread is scratched &amp; bent"]))
        found[f"{model}_tokenizer"] = hashlib.sha256(ids.tobytes()).hexdigest()
    return found


class _Loaded(NamedTuple):
    """Networks of one model; hash, size in bytes and commit on the hub of their files, of untrained ones their name and
    nothing."""

    networks: tuple[Any, Any]
    sha256: str
    bytes: int = 0
    commit: str | None = None


def _load_clip(source: str, precision: Precision) -> _Loaded:
    """Image tower and scale of the cosines."""
    dtype = compute_types(precision)["CLIP"]
    if is_random(source):
        return _Loaded((random_vision_tower(source, dtype), jnp.float32(100.0)), source)
    weights = find_weights(source, prefer="open_clip")
    clip = load_clip(weights, dtype)
    return _Loaded((clip.vision, clip.scale()), *_account([weights]))


def _load_diffusion(source: str, precision: Precision) -> _Loaded:
    """Autoencoder and UNet."""
    types = compute_types(precision)
    dtype, vae_dtype = types["UNet"], types["autoencoder"]
    if is_random(source):
        vae = random_autoencoder(source, vae_dtype, levels=LEVELS)
        return _Loaded((vae, random_unet(source, dtype, levels=LEVELS, in_channels=9)), source)
    parts = find_stable_diffusion(source)
    # Never trained, so that parameters need no more digits than the products have.
    vae = load_autoencoder(parts.vae, vae_dtype, param_dtype=vae_dtype)
    unet = load_unet(parts.unet, dtype, param_dtype=dtype)
    if unet.config.in_channels not in (4, 9):
        raise ConfigError(
            f"diffusion = {source!r}: a UNet of {unet.config.in_channels} input channels; needs 4 (latents) or 9 "
            "(inpainting)"
        )
    return _Loaded((vae, unet), *_account([parts.unet, parts.vae]))


def load_text(config: CLIPFusionConfig, model: str) -> tuple[TextTower, CLIPTokenizer]:
    """Text tower and tokenizer of a model, "clip" or "diffusion".

    Raises:
        WeightsError: they cannot be found or do not fit.
    """
    source, given = getattr(config, model), getattr(config, f"{model}_tokenizer")
    dtype = jnp.dtype(compute_dtype(config.precision))
    if is_random(source):
        return random_text_tower(source, dtype, context=CONTEXT, projected=model == "clip"), ByteTokenizer(CONTEXT)
    with _named(model, source, NEEDS[model]):
        weights = find_weights(source, prefer="open_clip") if model == "clip" else find_part(source, "text_encoder")
        tower = load_text_tower(weights, dtype)
    where: dict[str, Any] = {"filling": tower.config.filling}
    if model == "clip":
        where = {"open_clip": weights.has("visual.")}
    with _named(f"{model}_tokenizer", given or source, "must hold vocab.json and merges.txt, or tokenizer.json"):
        return tower, load_tokenizer(given or source, context=tower.config.context, **where)


@contextmanager
def _named(field: str, source: str, needs: str) -> Iterator[None]:
    """WeightsErrors say which setting names the source, and what that must hold."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{field} = {source}: {needs}; {error}") from error


def _pinned(source: str, commit: str | None) -> str:
    """A source with the commit that it is of, where it came from the hub: a checkpoint loads the same again."""
    return source if commit is None else f"{split_revision(source)[0]}@{commit}"


def _account(found: list[Weights]) -> tuple[str, int, str | None]:
    """Hashes joined by "+", once for networks that share a file, size in bytes of all files, and commit."""
    commit = next((weights.commit for weights in found if weights.commit), None)
    hashes = {weights.files: weights.sha256 for weights in found}.values()
    return "+".join(hashes), sum(file.stat().st_size for file in {file for w in found for file in w.files}), commit
