"""The denoiser that a config of DPDiff-AD names."""

from __future__ import annotations

from typing import Any

from flax import nnx

from jaxad.config import DPDiffConfig
from jaxad.diffusion.dit import PrototypeDiT
from jaxad.diffusion.unet import PrototypeUNet
from jaxad.diffusion.uvit import PrototypeUViT
from jaxad.nn.attention import attention_heads


def denoiser_heads(config: DPDiffConfig, channels: int) -> int:
    """Attention heads of the denoiser for features of `channels` channels: those of a ViT of that width."""
    return config.heads or attention_heads(config.width or channels)


def denoiser_width(config: DPDiffConfig, channels: int) -> int:
    """Width of the denoiser for features of `channels` channels.

    As many as theirs, because a narrower denoiser cannot predict noise in all channels.

    The U-Net's first level has about 3/8 of them: with its 3x3 kernels and its wider second level that makes as many
    parameters as a DiT of depth 4.
    """
    if config.width is not None or config.denoiser != "unet":
        return config.width or channels
    heads = denoiser_heads(config, channels)
    return heads * max(1, round(3 * channels / 8 / heads))


def make_denoiser(
    config: DPDiffConfig, channels: int, grid: tuple[int, int], *, dtype: Any, rngs: nnx.Rngs
) -> PrototypeDiT | PrototypeUNet | PrototypeUViT | None:
    """A new denoiser: tokens [b n c], prototypes [b k c] or None, t [b] or [1] -> [b n c]; or None, as the config says.

    Args:
        config: architecture, width, heads, depth, whether there are prototypes, whether activations are kept.
        channels: width c of tokens and prototypes.
        grid: rows and columns of the tokens.
        dtype: compute type.
        rngs: keys of the parameters.
    """
    if config.denoiser == "none":
        return None
    shared: dict[str, Any] = {
        "width": denoiser_width(config, channels),
        "heads": denoiser_heads(config, channels),
        "prototypes": config.local_prototypes + config.global_prototypes > 0,
        "remat": config.remat,
        "dtype": dtype,
        "rngs": rngs,
    }
    if config.denoiser == "unet":
        return PrototypeUNet(channels, grid, **shared)
    shared["depth"] = config.depth
    if config.denoiser == "uvit":
        # What a DiT block spends on its modulation goes into the feed-forward layer.
        return PrototypeUViT(channels, grid, mlp_ratio=config.mlp_ratio + 2, **shared)
    return PrototypeDiT(channels, grid, mlp_ratio=config.mlp_ratio, self_attention=config.self_attention, **shared)
