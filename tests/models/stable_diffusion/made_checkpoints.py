"""Small random Stable Diffusion networks and checkpoints, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from jaxad.models.clip.checkpoints import TEXT_LAYOUTS
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder, save_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps, unet_key_map
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet, save_unet
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state
from tests.models.clip.vocabulary import write_tokenizer

UNET = UNetConfig(
    block_out_channels=(8, 16),
    layers_per_block=1,
    down_attention=(True, False),
    up_attention=(False, True),
    heads=(2, 4),
    cross_attention_dim=12,
    norm_num_groups=4,
)
AUTOENCODER = AutoencoderConfig(block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4)


def randomized(abstract: Any, seed: int = 0) -> Any:
    """The module with parameters drawn such that no branch vanishes."""
    return module_state.drawn(abstract, np.random.default_rng(seed), deviation=0.2)


def write_folder(folder: Path, unet: UNetConfig = UNET, autoencoder: AutoencoderConfig = AUTOENCODER) -> None:
    """A folder in diffusers layout with the subfolders unet and vae."""
    save_unet(randomized(abstract_unet(unet)), folder / "unet")
    save_autoencoder(randomized(abstract_autoencoder(autoencoder)), folder / "vae")


def write_single_file(file: Path, unet: UNetConfig, autoencoder: AutoencoderConfig) -> None:
    """One LDM-style .safetensors file with UNet (and its moving average, one larger), autoencoder and a text weight."""
    tensors = {"cond_stage_model.transformer.text_model.w": np.ones(2, np.float32), "betas": np.ones(3, np.float32)}
    for name, tensor in to_torch(randomized(abstract_unet(unet)), unet_key_map(unet, ldm=True)).items():
        tensors[f"model.diffusion_model.{name}"] = tensor
        tensors["model_ema." + f"diffusion_model.{name}".replace(".", "")] = tensor + 1
    vae = to_torch(randomized(abstract_autoencoder(autoencoder)), autoencoder_key_maps(autoencoder)["ldm"])
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in vae.items()}
    safetensors.numpy.save_file(tensors, file)


TEXT = TextConfig(12, depth=1, heads=2, hidden=24, vocabulary=526, projection=None, pool="end", end=525)


def write_pipeline(folder: Path) -> None:
    """A whole Stable Diffusion in diffusers layout: unet, vae, text_encoder and tokenizer."""
    write_folder(folder)
    vocabulary = write_tokenizer(folder / "tokenizer")
    assert len(vocabulary) == TEXT.vocabulary
    text = folder / "text_encoder"
    text.mkdir()
    config = {
        "model_type": "clip_text_model",
        "hidden_size": TEXT.width,
        "intermediate_size": TEXT.hidden,
        "num_hidden_layers": TEXT.depth,
        "num_attention_heads": TEXT.heads,
        "vocab_size": TEXT.vocabulary,
        "max_position_embeddings": TEXT.context,
        "eos_token_id": TEXT.end,
        "hidden_act": TEXT.activation,
    }
    (text / "config.json").write_text(json.dumps(config))
    tensors = to_torch(randomized(abstract_text_tower(TEXT)), TEXT_LAYOUTS["transformers, text_model"])
    safetensors.numpy.save_file(tensors, text / "model.safetensors")
