"""A tiny CLIP in the layout of open_clip and a tiny Stable Diffusion of diffusers, with tokenizers, without torch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file

from jaxad.config import CLIPFusionConfig
from jaxad.models.clip.checkpoints import CLIP_LAYOUTS, TEXT_LAYOUTS
from jaxad.models.clip.config import CLIPConfig, TextConfig
from jaxad.models.clip.towers import abstract_clip, abstract_text_tower
from jaxad.models.weights.key_map import to_torch
from tests.models.clip import vocabulary as clip_vocabulary
from tests.models.clip.vocabulary import write_tokenizer
from tests.models.stable_diffusion.made_checkpoints import UNET, randomized, write_folder

PATCH, SIDE, DEPTH = 4, 12, 3
STATES = ("crack", "residue")

CONFIG: dict[str, Any] = {
    "states": STATES,
    "clip_blocks": (2, -1),
    "image_size": 16,
    "diffusion_taps": ((201, 1), (401, 0)),
    "language_timesteps": (201, 401),
    "output_size": 20,
    "chunk": 16,
}
"""Settings for these networks; "residue" is two tokens, as for the published ones, "crack" one."""

BASELINES = ("clip-ac", "trans-mm", "maskclip", "winclip", "caoyunkang-winclip", "accurate-winclip")

MERGES = (*clip_vocabulary.MERGES, "r e", "re s", "res i")


def write_clip(folder: Path) -> Path:
    """A CLIP of 3 blocks and 3 x 3 patches as open_clip_config.json and weights, and its tokenizer."""
    vocabulary = write_tokenizer(folder, MERGES)
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": SIDE, "patch_size": PATCH, "width": 16, "layers": DEPTH, "head_width": 8},
        "text_cfg": {"context_length": 77, "vocab_size": len(vocabulary), "width": 16, "heads": 2, "layers": 2},
    }
    clip = randomized(abstract_clip(CLIPConfig.from_open_clip(config)), seed=1)
    clip.logit_scale[...] = clip.logit_scale[...] * 0 + 3.0
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    save_file(to_torch(clip, CLIP_LAYOUTS["open_clip"]), folder / "open_clip_model.safetensors")
    return folder


def write_diffusion(folder: Path, channels: int = 9, pad: str = "!") -> Path:
    """A Stable Diffusion of two levels: unet, vae, text_encoder and tokenizer, which pads as SD 2 does or by `pad`."""
    write_folder(folder, dataclasses.replace(UNET, in_channels=channels))
    vocabulary = write_tokenizer(folder / "tokenizer", MERGES, pad=pad)
    config = {
        "model_type": "clip_text_model",
        "hidden_size": UNET.cross_attention_dim,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": 77,
        "hidden_act": "gelu",
        "eos_token_id": len(vocabulary) - 1,
    }
    tower = randomized(abstract_text_tower(TextConfig.from_huggingface(config, projected=False)), seed=2)
    (folder / "text_encoder").mkdir(exist_ok=True)
    (folder / "text_encoder" / "config.json").write_text(json.dumps(config))
    tensors = to_torch(tower, TEXT_LAYOUTS["transformers, text_model"])
    save_file(tensors, folder / "text_encoder" / "model.safetensors")
    return folder


def fusion_config(folder: Path, preset: str = "default", **changes: Any) -> CLIPFusionConfig:
    """A preset on the networks that `write_clip` and `write_diffusion` put into folder/clip and folder/diffusion."""
    places = {"clip": str(folder / "clip"), "diffusion": str(folder / "diffusion")}
    # Presets that choose blocks of CLIP keep their choice.
    small = {k: v for k, v in CONFIG.items() if k != "clip_blocks" or preset not in BASELINES}
    if preset in BASELINES and not preset.endswith("winclip"):
        small["clip_blocks"] = ()
    return CLIPFusionConfig.preset(preset, **{**small, **places, **changes})
