"""Where Stable Diffusion's networks lie in diffusers folders and in original LDM checkpoints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.numpy

from jaxad.errors import WeightsError
from jaxad.io.places import expanded
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.weights.config_fields import plausible_depth
from jaxad.models.weights.key_map import CONV, CONV1X1_AS_LINEAR, LINEAR, NORM, KeyMap, Layout, to_torch
from jaxad.models.weights.loader import Weights, find_weights

Part = Literal["unet", "vae", "text_encoder"]

LDM_PREFIXES: dict[Part, tuple[str, ...]] = {
    "unet": ("model.diffusion_model.",),
    "vae": ("first_stage_model.",),
    "text_encoder": ("cond_stage_model.transformer.", "cond_stage_model.model."),
}
"""Where a Stable Diffusion .ckpt holds each network; the text encoder of SD 1 by transformers, of SD 2 by open_clip."""

AUTOENCODER_TRAINING = ("loss.*", "model_ema.*")
"""Tensors of an autoencoder's .ckpt that only its training uses."""

Row = tuple[str, str, Layout]


@dataclass(frozen=True)
class StableDiffusion:
    """The pretrained networks of one Stable Diffusion, found but not yet read."""

    unet: Weights
    vae: Weights
    text_encoder: Weights


def find_stable_diffusion(source: str | Path, revision: str | None = None, *, ema: bool = False) -> StableDiffusion:
    """The weights of all three networks in a folder or hub id in diffusers layout, or in one .ckpt or .safetensors.

    Args:
        source: folder or hub id with the subfolders unet, vae and text_encoder, or one file, or what `jaxad convert`
            made of it.
        revision: branch, tag or commit on the hub.
        ema: the UNet's moving average, of a file that has both.

    Raises:
        WeightsError: one of them is missing, or cannot be got.
    """
    if is_whole(source):
        whole = find_weights(source)
        if lacking := [part for part in LDM_PREFIXES if not any(map(whole.has, LDM_PREFIXES[part]))]:
            raise WeightsError(f"{source}: a Stable Diffusion checkpoint without {', '.join(lacking)}")
        return StableDiffusion(*(_within(whole, part, ema) for part in LDM_PREFIXES))
    return StableDiffusion(*(find_weights(source, revision, part) for part in LDM_PREFIXES))


def find_part(source: str | Path, part: Part, revision: str | None = None, *, ema: bool = False) -> Weights:
    """The weights of one network, in a Stable Diffusion source or in a folder, hub id or file of its own.

    Args:
        source, revision, ema: see `find_stable_diffusion`.
        part: the network.

    Raises:
        WeightsError: it is missing, or cannot be got.
    """
    path = expanded(source)
    if is_whole(source):
        return _within(find_weights(source), part, ema)
    if path.is_dir():
        return find_weights(source, revision, part if (path / part).is_dir() else "")
    try:
        return find_weights(source, revision, part)
    except WeightsError as error:
        try:
            return find_weights(source, revision)
        except WeightsError:
            raise error from None


def is_whole(source: str | Path) -> bool:
    """Whether all networks are in one file, or in a folder that `jaxad convert` made of one (no config.json)."""
    path = expanded(source)
    return path.is_file() or (any(path.glob("model*.safetensors")) and not (path / "config.json").exists())


def is_ldm(weights: Weights) -> bool:
    """Whether a UNet's or an autoencoder's weights are named as in the original LDM code."""
    return weights.has("input_blocks.") or weights.has("encoder.down.")


def unet_key_map(config: UNetConfig, *, ldm: bool = False) -> KeyMap:
    """Where each parameter of `UNet` lies in a file of diffusers, or below "model.diffusion_model." of an LDM one."""
    projection = LINEAR if config.use_linear_projection else CONV1X1_AS_LINEAR
    return _ldm_unet(config, projection) if ldm else _diffusers_unet(projection)


def autoencoder_key_maps(config: AutoencoderConfig) -> dict[str, KeyMap]:
    """Where each parameter of `AutoencoderKL` lies, by layout: of diffusers, of old diffusers, of LDM."""
    new = ("group_norm", "to_q", "to_k", "to_v", "to_out.0")
    old = ("group_norm", "query", "key", "value", "proj_attn")
    return {
        "diffusers": _diffusers_autoencoder(new),
        "diffusers before 0.18": _diffusers_autoencoder(old),
        "ldm": _ldm_autoencoder(config),
    }


def infer_unet_config(weights: Weights) -> UNetConfig:
    """The shape of a UNet in LDM names, from its tensors; an LDM file has no config.

    Heads are not seen in shapes: SD 1, whose projections are convolutions, has 8 in every level; SD 2, whose
    projections are matrices, has heads of 64 channels.

    Raises:
        WeightsError: the names are not those of such a network.
    """
    blocks = _count(weights, "input_blocks.{}.")
    levels = 1 + sum(f"input_blocks.{index}.0.op.weight" in weights.tensors for index in range(blocks))
    layers = (blocks - levels) // levels
    firsts = [1 + level * (layers + 1) for level in range(levels)]
    outs = [block * (layers + 1) for block in range(levels)]
    if blocks != levels * (layers + 1) or layers < 1:
        raise WeightsError(f"{weights}: {blocks} input_blocks of {levels} levels are no Stable Diffusion UNet")
    widths = tuple(_shape(weights, f"input_blocks.{first}.0.out_layers.3.weight")[0] for first in firsts)
    sites = [f"input_blocks.{first}.1." for first in firsts if weights.has(f"input_blocks.{first}.1.proj_in.")]
    sites = [*sites, "middle_block.1."]
    linear = len(_shape(weights, f"{sites[0]}proj_in.weight")) == 2
    return UNetConfig(
        in_channels=_shape(weights, "input_blocks.0.0.weight")[1],
        out_channels=_shape(weights, "out.2.weight")[0],
        block_out_channels=widths,
        layers_per_block=layers,
        down_attention=tuple(weights.has(f"input_blocks.{first}.1.proj_in.") for first in firsts),
        up_attention=tuple(weights.has(f"output_blocks.{out}.1.proj_in.") for out in outs),
        heads=tuple(max(width // 64, 1) if linear else 8 for width in widths),
        cross_attention_dim=_shape(weights, f"{sites[0]}transformer_blocks.0.attn2.to_k.weight")[1],
        use_linear_projection=linear,
    )


def infer_autoencoder_config(weights: Weights) -> AutoencoderConfig:
    """The shape of an autoencoder in LDM names, from its tensors; the scaling factor is Stable Diffusion's.

    Raises:
        WeightsError: the names are not those of such a network.
    """
    levels = range(_count(weights, "encoder.down.{}."))
    return AutoencoderConfig(
        in_channels=_shape(weights, "encoder.conv_in.weight")[1],
        out_channels=_shape(weights, "decoder.conv_out.weight")[0],
        latent_channels=_shape(weights, "post_quant_conv.weight")[0],
        block_out_channels=tuple(_shape(weights, f"encoder.down.{level}.block.0.conv1.weight")[0] for level in levels),
        layers_per_block=_count(weights, "encoder.down.0.block.{}."),
    )


def write_diffusers(module: Any, key_map: KeyMap, config: dict[str, Any], folder: str | Path) -> None:
    """Write a network as config.json and diffusion_pytorch_model.safetensors into `folder`, made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = to_torch(module, key_map)
    safetensors.numpy.save_file(tensors, folder / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})


def _within(whole: Weights, part: Part, ema: bool) -> Weights:
    """One network of a single file; the file as it is where it holds nothing else."""
    if ema and part == "unet":
        whole = whole.ema()
    return next((whole.under(prefix) for prefix in LDM_PREFIXES[part] if whole.has(prefix)), whole)


def _shape(weights: Weights, name: str) -> Sequence[int]:
    if name not in weights.tensors:
        raise WeightsError(f"{weights}: {name}: missing, so that the shape of the network cannot be told")
    return weights.tensors[name].shape


def _count(weights: Weights, pattern: str) -> int:
    """How many of the modules `pattern` there are, numbered from 0."""
    number = 0
    while weights.has(pattern.format(number)):
        number = plausible_depth(number + 1, f"{weights}: {pattern}")
    return number


_RESNET: dict[str, Layout] = {
    "norm1": NORM,
    "conv1": CONV,
    "time_emb_proj": LINEAR,
    "norm2": NORM,
    "conv2": CONV,
    "conv_shortcut": CONV1X1_AS_LINEAR,
}
_DIFFUSERS_UNET_RESNET = {part: part for part in _RESNET}
_DIFFUSERS_AUTOENCODER_RESNET = {part: part for part in _RESNET if part != "time_emb_proj"}
_LDM_AUTOENCODER_RESNET = {**_DIFFUSERS_AUTOENCODER_RESNET, "conv_shortcut": "nin_shortcut"}
_LDM_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _resnet(path: str, name: str, parts: Mapping[str, str]) -> list[Row]:
    return [(f"{path}/{module}", f"{name}.{part}", _RESNET[module]) for module, part in parts.items()]


def _transformer(path: str, name: str, projection: Layout) -> list[Row]:
    """A transformer, which LDM and diffusers name alike."""
    block = f"{name}.transformer_blocks.0"
    attentions = [
        (f"{path}/block/{attention}/{module}", f"{block}.{attention}.{part}", LINEAR)
        for attention in ("attn1", "attn2")
        for module, part in (("to_q", "to_q"), ("to_k", "to_k"), ("to_v", "to_v"), ("to_out", "to_out.0"))
    ]
    return [
        (f"{path}/norm", f"{name}.norm", NORM),
        (f"{path}/proj_in", f"{name}.proj_in", projection),
        (f"{path}/proj_out", f"{name}.proj_out", projection),
        *((f"{path}/block/norm{number}", f"{block}.norm{number}", NORM) for number in (1, 2, 3)),
        *attentions,
        (f"{path}/block/ff/proj", f"{block}.ff.net.0.proj", LINEAR),
        (f"{path}/block/ff/out", f"{block}.ff.net.2", LINEAR),
    ]


def _diffusers_unet(projection: Layout) -> KeyMap:
    return [
        ("time_embedding/linear_1", "time_embedding.linear_1", LINEAR),
        ("time_embedding/linear_2", "time_embedding.linear_2", LINEAR),
        ("conv_in", "conv_in", CONV),
        *_resnet("down_blocks/{}/resnets/{}", "down_blocks.{}.resnets.{}", _DIFFUSERS_UNET_RESNET),
        *_transformer("down_blocks/{}/attentions/{}", "down_blocks.{}.attentions.{}", projection),
        ("down_blocks/{}/downsampler", "down_blocks.{}.downsamplers.0.conv", CONV),
        *_resnet("mid_block/resnets/{}", "mid_block.resnets.{}", _DIFFUSERS_UNET_RESNET),
        *_transformer("mid_block/attentions/{}", "mid_block.attentions.{}", projection),
        *_resnet("up_blocks/{}/resnets/{}", "up_blocks.{}.resnets.{}", _DIFFUSERS_UNET_RESNET),
        *_transformer("up_blocks/{}/attentions/{}", "up_blocks.{}.attentions.{}", projection),
        ("up_blocks/{}/upsampler", "up_blocks.{}.upsamplers.0.conv", CONV),
        ("conv_norm_out", "conv_norm_out", NORM),
        ("conv_out", "conv_out", CONV),
    ]


def _ldm_unet(config: UNetConfig, projection: Layout) -> KeyMap:
    levels, layers = range(len(config.block_out_channels)), config.layers_per_block
    rows: list[Row] = [
        ("time_embedding/linear_1", "time_embed.0", LINEAR),
        ("time_embedding/linear_2", "time_embed.2", LINEAR),
        ("conv_in", "input_blocks.0.0", CONV),
        *_resnet("mid_block/resnets/0", "middle_block.0", _LDM_UNET_RESNET),
        *_transformer("mid_block/attentions/0", "middle_block.1", projection),
        *_resnet("mid_block/resnets/1", "middle_block.2", _LDM_UNET_RESNET),
        ("conv_norm_out", "out.0", NORM),
        ("conv_out", "out.2", CONV),
    ]
    for block in levels:
        # LDM numbers layers and downsamplers through; the first input block is the first convolution.
        for layer in range(layers):
            name = f"input_blocks.{1 + block * (layers + 1) + layer}"
            rows += _resnet(f"down_blocks/{block}/resnets/{layer}", f"{name}.0", _LDM_UNET_RESNET)
            rows += _transformer(f"down_blocks/{block}/attentions/{layer}", f"{name}.1", projection)
        rows.append((f"down_blocks/{block}/downsampler", f"input_blocks.{(block + 1) * (layers + 1)}.0.op", CONV))
        for layer in range(layers + 1):
            name = f"output_blocks.{block * (layers + 1) + layer}"
            rows += _resnet(f"up_blocks/{block}/resnets/{layer}", f"{name}.0", _LDM_UNET_RESNET)
            rows += _transformer(f"up_blocks/{block}/attentions/{layer}", f"{name}.1", projection)
        position = 2 if config.up_attention[block] else 1
        last = block * (layers + 1) + layers
        rows.append((f"up_blocks/{block}/upsampler", f"output_blocks.{last}.{position}.conv", CONV))
    return rows


def _ends(autoencoder_norm: str) -> list[Row]:
    rows: list[Row] = [("quant_conv", "quant_conv", CONV1X1_AS_LINEAR)]
    rows.append(("post_quant_conv", "post_quant_conv", CONV1X1_AS_LINEAR))
    for half in ("encoder", "decoder"):
        rows += [
            (f"{half}/conv_in", f"{half}.conv_in", CONV),
            (f"{half}/conv_norm_out", f"{half}.{autoencoder_norm}", NORM),
            (f"{half}/conv_out", f"{half}.conv_out", CONV),
        ]
    return rows


def _attention(path: str, name: str, parts: Sequence[str], layout: Layout) -> list[Row]:
    norm, *projections = parts
    modules = ("to_q", "to_k", "to_v", "to_out")
    return [
        (f"{path}/group_norm", f"{name}.{norm}", NORM),
        *((f"{path}/attention/{m}", f"{name}.{part}", layout) for m, part in zip(modules, projections, strict=True)),
    ]


def _diffusers_autoencoder(attention: Sequence[str]) -> KeyMap:
    rows = _ends("conv_norm_out")
    for half, blocks, sampler in (("encoder", "down_blocks", "downsampler"), ("decoder", "up_blocks", "upsampler")):
        middle = f"{half}.mid_block"
        rows += _resnet(
            f"{half}/{blocks}/{{}}/resnets/{{}}", f"{half}.{blocks}.{{}}.resnets.{{}}", _DIFFUSERS_AUTOENCODER_RESNET
        )
        rows.append((f"{half}/{blocks}/{{}}/{sampler}", f"{half}.{blocks}.{{}}.{sampler}s.0.conv", CONV))
        rows += _resnet(f"{half}/mid_block/resnets/{{}}", f"{middle}.resnets.{{}}", _DIFFUSERS_AUTOENCODER_RESNET)
        rows += _attention(f"{half}/mid_block/attentions/{{}}", f"{middle}.attentions.{{}}", attention, LINEAR)
    return rows


def _ldm_autoencoder(config: AutoencoderConfig) -> KeyMap:
    rows, names = _ends("norm_out"), _LDM_AUTOENCODER_RESNET
    last = len(config.block_out_channels) - 1
    for half in ("encoder", "decoder"):
        middle = f"{half}/mid_block"
        rows += _resnet(f"{middle}/resnets/0", f"{half}.mid.block_1", names)
        rows += _resnet(f"{middle}/resnets/1", f"{half}.mid.block_2", names)
        attention = ("norm", "q", "k", "v", "proj_out")
        rows += _attention(f"{middle}/attentions/0", f"{half}.mid.attn_1", attention, CONV1X1_AS_LINEAR)
    for block in range(last + 1):
        # LDM numbers the decoder's blocks by their level, diffusers in the order of the data.
        up = f"decoder.up.{last - block}"
        rows += _resnet(f"encoder/down_blocks/{block}/resnets/{{}}", f"encoder.down.{block}.block.{{}}", names)
        rows += _resnet(f"decoder/up_blocks/{block}/resnets/{{}}", f"{up}.block.{{}}", names)
        rows.append((f"encoder/down_blocks/{block}/downsampler", f"encoder.down.{block}.downsample.conv", CONV))
        rows.append((f"decoder/up_blocks/{block}/upsampler", f"{up}.upsample.conv", CONV))
    return rows
