"""CLIP and its towers from files of transformers, open_clip, OpenAI, diffusers and LDM."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxad.models.clip.checkpoints import BUFFERS, CLIP_LAYOUTS, NOT_TEXT, TEXT_LAYOUTS
from jaxad.models.clip.config import Activation, CLIPConfig, TextConfig, open_clip_config_of, text_config_of
from jaxad.models.clip.towers import CLIP, TextTower, abstract_clip, abstract_text_tower
from jaxad.models.stable_diffusion.checkpoints import LDM_PREFIXES
from jaxad.models.weights.key_map import choose_key_map, fill
from jaxad.models.weights.loader import Weights
from jaxad.nn.normalization import Normalization

SD1_TEXT, SD2_TEXT = LDM_PREFIXES["text_encoder"]


def load_clip(weights: Weights, dtype: Any = jnp.float32, activation: Activation | None = None) -> CLIP:
    """Both towers of a CLIP.

    Args:
        weights: what `find_weights` found: a CLIPModel of transformers, a ViT of open_clip with or without its
            open_clip_config.json, or OpenAI's own tensors. How it takes images, preprocessor_config.json or
            open_clip_config.json says; else as OpenAI's. Ask for `prefer="open_clip"` where they may lie beside timm's
            image tower.
        dtype: compute type.
        activation: of the feed-forward layers, None for what the config says. Weights of open_clip that come without a
            config are taken for "gelu", OpenAI's own for "quick_gelu"; tensors alone do not tell.

    Raises:
        WeightsError: the weights are no CLIP, do not fit their config, or need one.
    """
    with weights.reading():
        return _clip(weights, dtype, activation)


def _clip(weights: Weights, dtype: Any, activation: Activation | None) -> CLIP:
    layout, key_map = choose_key_map(weights, CLIP_LAYOUTS)
    if layout == "transformers":
        config = CLIPConfig.from_huggingface(weights.config)
    else:
        config = CLIPConfig.from_open_clip(_open_clip_config(weights, layout))
    normalization = Normalization.of(weights.preprocessor, weights.config, config.vision.normalization)
    vision = dataclasses.replace(config.vision, normalization=normalization)
    config = dataclasses.replace(config, vision=vision)
    if activation:
        vision = dataclasses.replace(vision, activation=activation)
        config = CLIPConfig(vision, dataclasses.replace(config.text, activation=activation))
    weights.check_blocks(config.vision.depth + config.text.depth)
    return fill(abstract_clip(config, dtype), weights, key_map, ignore=BUFFERS)


def load_text_tower(weights: Weights, dtype: Any = jnp.float32, activation: Activation | None = None) -> TextTower:
    """The text tower of a whole CLIP (see `load_clip`), of Stable Diffusion, or of a CLIPTextModel.

    Args:
        weights: what `find_weights` found: a CLIPTextModel with or without projection, such as the subfolder
            `text_encoder` of a diffusers pipeline, a whole CLIP, or a .ckpt of Stable Diffusion 1.x or 2.x, whole or
            what `find_part` found in it. Of the latter's 24 blocks the last is left out, as it was in training.
        dtype: compute type.
        activation: of the feed-forward layers, None for what the config or the kind of file says.

    Raises:
        WeightsError: the weights hold no such tower, do not fit their config, or need one.
    """
    with weights.reading():
        return _text_tower(weights, dtype, activation)


def _text_tower(weights: Weights, dtype: Any, activation: Activation | None) -> TextTower:
    weights = next((weights.under(prefix) for prefix in (SD1_TEXT, SD2_TEXT) if weights.has(prefix)), weights)
    if weights.prefix.endswith(SD2_TEXT):
        return _penultimate(weights, dtype, activation or "gelu")
    if weights.prefix.endswith(SD1_TEXT):
        config = text_config_of(weights.under("text_model.").tensors, "quick_gelu")
        key_map = TEXT_LAYOUTS["transformers, text_model"]
    else:
        layout, key_map = choose_key_map(weights, TEXT_LAYOUTS)
        if layout.startswith("open_clip"):
            config = TextConfig.from_open_clip(_open_clip_config(weights, layout))
        else:
            projected = "text_projection.weight" in weights.tensors
            config = TextConfig.from_huggingface(weights.config, projected=projected)
    if activation:
        config = dataclasses.replace(config, activation=activation)
    weights.check_blocks(config.depth)
    return fill(abstract_text_tower(config, dtype), weights, key_map, ignore=(*BUFFERS, *NOT_TEXT))


def _penultimate(weights: Weights, dtype: Any, activation: Activation) -> TextTower:
    """The text tower of a .ckpt of Stable Diffusion 2, without its last block and projection."""
    config = TextConfig.from_open_clip(open_clip_config_of(weights.tensors, activation == "quick_gelu"))
    last = config.depth - 1
    config = dataclasses.replace(config, depth=last, projection=None)
    ignore = (*BUFFERS, *NOT_TEXT, f"transformer.resblocks.{last}.*", "text_projection")
    return fill(abstract_text_tower(config, dtype), weights, TEXT_LAYOUTS["open_clip"], ignore=ignore)


def _open_clip_config(weights: Weights, layout: str) -> Any:
    """Content of open_clip_config.json, or what can be told without."""
    config = weights.config.get("model_cfg", weights.config)
    if not isinstance(config, Mapping) or "embed_dim" in config:
        return config
    # Only OpenAI's own files hold their sizes as tensors.
    quick_gelu = "input_resolution" in weights.tensors
    return open_clip_config_of(weights.tensors, quick_gelu, text="text." if layout == "open_clip, text" else "")
