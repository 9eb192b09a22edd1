"""Checkpoints of VLMDiff's and DiAD's authors, built or trained, as a detector's networks."""

from __future__ import annotations

from typing import Any

from jaxad.detectors.vlmdiff.networks import Networks
from jaxad.detectors.vlmdiff.sgn import SGN, abstract_sgn
from jaxad.errors import WeightsError
from jaxad.models.clip.loading import load_text_tower
from jaxad.models.stable_diffusion.autoencoder_kl import load_autoencoder
from jaxad.models.stable_diffusion.checkpoints import LDM_PREFIXES, unet_key_map
from jaxad.models.stable_diffusion.config import UNetConfig
from jaxad.models.stable_diffusion.unet import load_unet
from jaxad.models.weights.key_map import CONV, CONV1X1_AS_LINEAR, KeyMap, fill
from jaxad.models.weights.loader import Weights, find_weights

SGN_PREFIX = "control_model."
DECODER = ("up_blocks", "conv_norm_out", "conv_out")
"""Parts of the UNet that the SGN does not copy."""


def load_published(path: str, dtype: Any, *, remat: bool = False) -> tuple[Networks, SGN]:
    """All networks of one checkpoint.

    Args:
        path: a file of torch or safetensors with `control_model.*` (the SGN), `model.diffusion_model.*`,
            `first_stage_model.*` and `cond_stage_model.*`, bare or with the state of its training around them.
        dtype: compute type.
        remat: whether training computes activations again.

    Raises:
        WeightsError: a part is missing, does not fit, or there are tensors that belong to none; all are listed.
    """
    whole = find_weights(path)
    _check_parts(whole)
    (unet_prefix,), (first_prefix,) = LDM_PREFIXES["unet"], LDM_PREFIXES["vae"]
    unet = load_unet(whole.under(unet_prefix), dtype, remat=remat)
    autoencoder = load_autoencoder(whole.under(first_prefix), dtype)
    networks = Networks(unet, autoencoder, load_text_tower(whole, dtype), (whole.sha256, whole.sha256))
    return networks, load_sgn(whole.under(SGN_PREFIX), unet.config, networks.factor, dtype, remat=remat)


def load_sgn(weights: Weights, config: UNetConfig, factor: int, dtype: Any, *, remat: bool = False) -> SGN:
    """The SGN of tensors named as below `control_model.`; see `SGN` for the arguments."""
    with weights.reading():
        network = abstract_sgn(config, factor, remat=remat, dtype=dtype)
        return fill(network, weights, sgn_key_map(config, factor))


def sgn_key_map(config: UNetConfig, factor: int) -> KeyMap:
    """Where each parameter of `SGN` lies below `control_model.`; downIK fuses the I-th output above into the K-th."""
    trunk = [row for row in unet_key_map(config, ldm=True) if not row[0].startswith(DECODER)]
    rows = [(f"trunk/{path}", name, layout) for path, name, layout in trunk]
    rows.append(("zero_convs/{}", "zero_convs.{}.0", CONV1X1_AS_LINEAR))
    rows.append(("middle_zero_conv", "middle_block_out.0", CONV1X1_AS_LINEAR))
    # Activations take every second place of the hint encoder; each halving of the image has two convolutions.
    convs = 2 * (factor.bit_length() - 1) + 1
    rows += [(f"hint/convs/{index}", f"input_hint_block.{2 * index}", CONV) for index in range(convs)]
    rows.append(("hint/zero_conv", f"input_hint_block.{2 * convs}", CONV))
    outputs = range(config.layers_per_block + 1)
    rows += [(f"fusion/convs/{k}/{i}", f"down{i + 1}{k + 1}.0", CONV) for k in outputs for i in outputs]
    return rows


def _check_parts(whole: Weights) -> None:
    known = (SGN_PREFIX, *(prefix for prefixes in LDM_PREFIXES.values() for prefix in prefixes))
    parts = {"control_model": (SGN_PREFIX,), **LDM_PREFIXES}
    problems = [f"no tensors {prefixes[0]}*" for prefixes in parts.values() if not any(map(whole.has, prefixes))]
    # The noise schedule lies at the top, moving averages are of the first stage's training.
    strangers = [name for name in whole.tensors if "." in name and not name.startswith((*known, "model_ema."))]
    problems += [f"{name}: belongs to none of its networks" for name in strangers]
    if problems:
        head = f"{whole}: no checkpoint of VLMDiff or DiAD:"
        raise WeightsError("\n".join([head, *(f"  {problem}" for problem in problems)]))
