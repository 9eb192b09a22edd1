"""Checkpoints as VLMDiff's authors leave them, in miniature and without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.detectors.vlmdiff.sgn import abstract_sgn
from jaxad.models.clip.checkpoints import TEXT_LAYOUTS
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps, unet_key_map
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.models.weights.key_map import to_torch
from tests.models.stable_diffusion.made_checkpoints import randomized
from tests.models.weights.torch_files import tensor_of, write_torch

UNET = UNetConfig(
    block_out_channels=(32, 64),
    layers_per_block=1,
    down_attention=(True, False),
    up_attention=(False, True),
    heads=(8, 8),
    cross_attention_dim=64,
)
VAE = AutoencoderConfig(block_out_channels=(32, 64), layers_per_block=1)
TEXT = TextConfig(64, depth=1, heads=1, hidden=128, vocabulary=526, projection=None, activation="quick_gelu")


def networks_of(vae: AutoencoderConfig = VAE) -> dict[str, Any]:
    """Random networks, by name."""
    factor = 2 ** (len(vae.block_out_channels) - 1)
    return {
        "unet": randomized(abstract_unet(UNET), 1),
        "autoencoder": randomized(abstract_autoencoder(vae), 2),
        "text": randomized(abstract_text_tower(TEXT), 3),
        "sgn": randomized(abstract_sgn(UNET, factor), 4),
    }


def state_dict(networks: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors by the names that they have in the authors' code."""
    unet, vae, text = networks["unet"], networks["autoencoder"], networks["text"]
    tensors = {f"model.diffusion_model.{n}": x for n, x in to_torch(unet, unet_key_map(UNET, ldm=True)).items()}
    maps = autoencoder_key_maps(vae.config)["ldm"], TEXT_LAYOUTS["transformers, text_model"]
    tensors |= {f"first_stage_model.{name}": x for name, x in to_torch(vae, maps[0]).items()}
    tensors |= {f"cond_stage_model.transformer.{name}": x for name, x in to_torch(text, maps[1]).items()}
    tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = np.arange(77)[None]
    tensors["betas"] = np.linspace(0, 1, 1000, dtype=np.float32)
    sgn: Any = networks["sgn"]
    trunk = [row for row in unet_key_map(UNET, ldm=True) if not row[1].startswith(("output_blocks", "out."))]
    tensors |= {f"control_model.{name}": x for name, x in to_torch(sgn.trunk, trunk).items()}
    linears = {f"zero_convs.{index}.0": layer for index, layer in enumerate(sgn.zero_convs)}
    linears["middle_block_out.0"] = sgn.middle_zero_conv
    for name, layer in linears.items():
        tensors[f"control_model.{name}.weight"] = np.asarray(layer.kernel[...]).T[:, :, None, None]
        tensors[f"control_model.{name}.bias"] = np.asarray(layer.bias[...])
    # Activations take every second place.
    for index, layer in enumerate([*sgn.hint.convs, sgn.hint.zero_conv]):
        tensors[f"control_model.input_hint_block.{2 * index}.weight"] = oihw(layer)
        tensors[f"control_model.input_hint_block.{2 * index}.bias"] = np.asarray(layer.bias[...])
    # The second digit is the output that is changed, the first the one above that changes it.
    for name, (target, source) in {"11": (0, 0), "21": (0, 1), "12": (1, 0), "22": (1, 1)}.items():
        tensors[f"control_model.down{name}.0.weight"] = oihw(sgn.fusion.convs[target][source])
    return tensors


def oihw(layer: Any) -> np.ndarray:
    """The kernel of a convolution in torch's order."""
    return np.asarray(layer.kernel[...]).transpose(3, 2, 0, 1)


def write(file: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """As Lightning saves a training."""
    content = {name: tensor_of(np.ascontiguousarray(array)) for name, array in tensors.items()}
    state = {"epoch": 299, "global_step": 22682, "pytorch-lightning_version": "1.5.0", "callbacks": {}}
    write_torch(file, {**state, "optimizer_states": [], "lr_schedulers": [], "state_dict": content})
    return file
