"""Where a Vision Transformer's parameters lie in the files that users have, and whose file it is."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxad.errors import WeightsError
from jaxad.models.vit.config import MODEL_TYPES, ViTConfig
from jaxad.models.weights.config_fields import plausible_depth
from jaxad.models.weights.key_map import ARRAY, CONV, LINEAR, NORM, KeyMap, Layout, Leaf, choose_key_map, split_linear
from jaxad.models.weights.loader import Weights
from jaxad.models.weights.mapped_file import RenamedTensors
from jaxad.nn.positions import Interpolation

_HUGGINGFACE: KeyMap = (
    ("cls_token", "embeddings.cls_token", ARRAY),
    ("registers", "embeddings.register_tokens", ARRAY),
    ("positions", "embeddings.position_embeddings", ARRAY),
    ("patch_embed", "embeddings.patch_embeddings.projection", CONV),
    ("blocks/{}/attention/query", "encoder.layer.{}.attention.attention.query", LINEAR),
    ("blocks/{}/attention/key", "encoder.layer.{}.attention.attention.key", LINEAR),
    ("blocks/{}/attention/value", "encoder.layer.{}.attention.attention.value", LINEAR),
    ("blocks/{}/attention/out", "encoder.layer.{}.attention.output.dense", LINEAR),
    ("norm", "layernorm", NORM),
)

HUGGINGFACE_DINOV2: KeyMap = (
    *_HUGGINGFACE,
    ("blocks/{}/norm1", "encoder.layer.{}.norm1", NORM),
    ("blocks/{}/scale1/gain", "encoder.layer.{}.layer_scale1.lambda1", ARRAY),
    ("blocks/{}/norm2", "encoder.layer.{}.norm2", NORM),
    ("blocks/{}/mlp/fc1", "encoder.layer.{}.mlp.fc1", LINEAR),
    ("blocks/{}/mlp/fc2", "encoder.layer.{}.mlp.fc2", LINEAR),
    ("blocks/{}/mlp/gate_and_value", "encoder.layer.{}.mlp.weights_in", LINEAR),
    ("blocks/{}/mlp/out", "encoder.layer.{}.mlp.weights_out", LINEAR),
    ("blocks/{}/scale2/gain", "encoder.layer.{}.layer_scale2.lambda1", ARRAY),
)
"""Hugging Face files of DINOv2, with and without registers."""

HUGGINGFACE_VIT: KeyMap = (
    *_HUGGINGFACE,
    ("blocks/{}/norm1", "encoder.layer.{}.layernorm_before", NORM),
    ("blocks/{}/norm2", "encoder.layer.{}.layernorm_after", NORM),
    ("blocks/{}/mlp/fc1", "encoder.layer.{}.intermediate.dense", LINEAR),
    ("blocks/{}/mlp/fc2", "encoder.layer.{}.output.dense", LINEAR),
)
"""Hugging Face files of supervised ViT and of DINO."""

_ORIGINAL: KeyMap = (
    ("cls_token", "cls_token", ARRAY),
    ("patch_embed", "patch_embed.proj", CONV),
    ("blocks/{}/norm1", "blocks.{}.norm1", NORM),
    ("blocks/{}/attention/query", "blocks.{}.attn.qkv", split_linear(0, 3)),
    ("blocks/{}/attention/key", "blocks.{}.attn.qkv", split_linear(1, 3)),
    ("blocks/{}/attention/value", "blocks.{}.attn.qkv", split_linear(2, 3)),
    ("blocks/{}/attention/out", "blocks.{}.attn.proj", LINEAR),
    ("blocks/{}/scale1/gain", "blocks.{}.ls1.gamma", ARRAY),
    ("blocks/{}/norm2", "blocks.{}.norm2", NORM),
    ("blocks/{}/mlp/fc1", "blocks.{}.mlp.fc1", LINEAR),
    ("blocks/{}/mlp/fc2", "blocks.{}.mlp.fc2", LINEAR),
    ("blocks/{}/scale2/gain", "blocks.{}.ls2.gamma", ARRAY),
    ("norm", "norm", NORM),
)

ORIGINAL: KeyMap = (
    *_ORIGINAL,
    ("registers", "register_tokens", ARRAY),
    ("positions", "pos_embed", ARRAY),
    ("blocks/{}/mlp/gate_and_value", "blocks.{}.mlp.w12", LINEAR),
    ("blocks/{}/mlp/out", "blocks.{}.mlp.w3", LINEAR),
)
"""The authors' files of DINO and DINOv2; timm's of networks without registers and gates."""

TIMM: KeyMap = (
    *_ORIGINAL,
    ("positions", "pos_embed", ARRAY),
    ("blocks/{}/mlp/gate_and_value", "blocks.{}.mlp.fc1", LINEAR),
    ("blocks/{}/mlp/out", "blocks.{}.mlp.fc2", LINEAR),
)
"""timm's files of DINOv2-g, which call the gated layer as they call the plain one."""

_PATCHES_ONLY: Layout = {
    "": Leaf("", lambda tensor: np.pad(tensor, ((0, 0), (1, 0), (0, 0))), lambda positions: positions[:, 1:])
}

TIMM_REGISTERS: KeyMap = (
    *(row for row in TIMM if row[0] != "positions"),
    ("registers", "reg_token", ARRAY),
    ("positions", "pos_embed", _PATCHES_ONLY),
)
"""timm's files of DINOv2 with registers, whose class token has its position added already."""

LAYOUTS: Mapping[str, KeyMap] = {
    "Hugging Face DINOv2": HUGGINGFACE_DINOV2,
    "Hugging Face ViT": HUGGINGFACE_VIT,
    "original": ORIGINAL,
    "timm": TIMM,
    "timm with registers": TIMM_REGISTERS,
}
"""Every layout by its name, in the order of preference."""

UNUSED = ("embeddings.mask_token", "pooler.*", "mask_token", "head.*")
"""Tensors of a network's own that only pretraining or classification use."""

_BESIDE = ("classifier.", "decoder.")
"""Tensors beside the network: the heads of Hugging Face classes."""


@dataclass(frozen=True)
class ViTCheckpoint:
    """A file that was recognized as a Vision Transformer's.

    Attributes:
        config: the network's shape.
        weights: the network's own tensors, without a common prefix, blocks numbered through.
        key_map: where each parameter lies among them.
        contradictions: where config.json says other than the tensors' shapes.
    """

    config: ViTConfig
    weights: Weights
    key_map: KeyMap
    contradictions: tuple[str, ...] = ()


def is_vit(weights: Weights) -> bool:
    """Whether these are of a Vision Transformer, by their config.json or, without one, by their class token."""
    if (model_type := weights.config.get("model_type")) is not None:
        return isinstance(model_type, str) and model_type in MODEL_TYPES
    return any(name.rpartition(".")[2] == "cls_token" for name in weights.tensors)


def recognize(weights: Weights) -> ViTCheckpoint:
    """Whose file `weights` are, and what shape the network has.

    Known are Hugging Face's layouts of DINOv2 and of ViT (supervised and DINO; with classifier or pooler too), those of
    the authors of DINO and DINOv2 (blocks in chunks or not; `read_torch_pickle` takes the teacher out of a training
    state), and timm's.

    The shape comes from Hugging Face's config.json. Without one it is read off the tensors: width, depth, patch,
    positions, registers, layer scale, gate, and as many heads as there are 64 channels, as in every published network.
    Positions are then resized as by the code that the file was made for: transformers; timm, known by its config.json
    or its classifier; or else the authors' own, which scales by (new + 0.1) / old, or antialiases with registers.

    Raises:
        WeightsError: no such file, a config.json of another network, or tensors that leave the shape open.
    """
    weights = _numbered_through(_own_tensors(weights))
    title, key_map = choose_key_map(weights, LAYOUTS)
    facts = _shape_facts(weights, key_map)
    if title == "original" and facts.get("swiglu") and "blocks.0.mlp.fc1.weight" in weights.tensors:
        title, key_map = "timm", TIMM
    if not weights.config or "architecture" in weights.config:
        return ViTCheckpoint(_inferred(weights, facts, title), weights, key_map)
    config = ViTConfig.from_huggingface(weights.config)
    family = "Hugging Face DINOv2" if config.layer_scale else "Hugging Face ViT"
    if title.startswith("Hugging Face") and title != family:
        raise WeightsError(
            f"{weights}: config.json: model_type = {weights.config['model_type']!r}, but the tensors are named as in "
            f"{title}; the config belongs to another checkpoint"
        )
    said = {**dataclasses.asdict(config), "image_size": config.image_size // config.patch * config.patch}
    contradictions = (f"{name} {said[name]}, not {fact}" for name, fact in facts.items() if fact != said[name])
    return ViTCheckpoint(config, weights, key_map, tuple(contradictions))


def _inferred(weights: Weights, facts: Mapping[str, Any], title: str) -> ViTConfig:
    """The shape that `facts` tell, and what goes with the layout of that title."""
    needed = {"width", "depth", "patch", "image_size", "hidden"}
    problems = [f"no usable tensor tells {fact}" for fact in sorted(needed - facts.keys())]
    if facts.get("width", 0) % 64:
        problems.append(f"width {facts['width']} is no multiple of 64, so that the number of heads is open")
    if problems:
        reason = "; ".join(problems)
        raise WeightsError(f"{weights}: the network's shape cannot be read off its tensors: {reason}. Add config.json")
    by_timm = title.startswith("timm") or "architecture" in weights.config or "head.weight" in weights.tensors
    size_based: Interpolation = "antialias" if by_timm or facts["registers"] else "bicubic"
    by_authors = title == "original" and size_based == "bicubic"
    return ViTConfig(
        **facts,
        heads=facts["width"] // 64,
        norm_eps=1e-12 if title == "Hugging Face ViT" else 1e-6,
        interpolation="dinomaly" if by_authors else size_based,
    )


def _shape_facts(weights: Weights, key_map: KeyMap) -> dict[str, Any]:
    """Those fields of ViTConfig that the tensors' shapes tell; a field whose tensor is absent or odd is left out."""
    rows = {path: (name, layout) for path, name, layout in key_map}

    def shape(path: str, leaf: str = "kernel") -> tuple[int, ...]:
        name, layout = rows.get(path, ("", {}))
        tensor = weights.tensors.get(name.format(0) + layout[leaf].suffix) if layout else None
        return () if tensor is None else tensor.shape

    positions, kernel = shape("positions", ""), shape("patch_embed")
    first = shape("blocks/{}/mlp/gate_and_value") or shape("blocks/{}/mlp/fc1")
    second = shape("blocks/{}/mlp/out") or shape("blocks/{}/mlp/fc2")
    number = re.compile(re.escape(rows["blocks/{}/norm1"][0]).replace(r"\{\}", r"(\d+)") + r"\.weight")
    blocks = [int(match[1]) for name in weights.tensors if (match := number.fullmatch(name))]
    facts: dict[str, Any] = {
        "registers": math.prod(shape("registers", "")[:2]) if shape("registers", "") else 0,
        "layer_scale": bool(shape("blocks/{}/scale1/gain", "")),
        "qkv_bias": bool(shape("blocks/{}/attention/query", "bias")),
    }
    if blocks:
        # Not by the highest number, which may be any.
        facts["depth"] = plausible_depth(len(set(blocks)), weights)
    if len(first) == len(second) == 2:
        facts |= {"hidden": second[1], "swiglu": first[0] == 2 * second[1]}
    if len(kernel) == 4 and kernel[2] == kernel[3]:
        facts |= {"width": kernel[0], "patch": kernel[2]}
        count = positions[1] - (rows["positions"][1] is not _PATCHES_ONLY) if len(positions) == 3 else 0
        if count and math.isqrt(count) ** 2 == count:
            facts["image_size"] = math.isqrt(count) * kernel[2]
    return facts


def _own_tensors(weights: Weights) -> Weights:
    """The network's own tensors, without the prefix that they share.

    Raises:
        WeightsError: no network or several, or unknown tensors beside it.
    """
    ends = (re.fullmatch(r"(|.*\.)(?<!embeddings\.)(embeddings\.)?cls_token", name) for name in weights.tensors)
    prefixes = sorted({match[1] for match in ends if match})
    if len(prefixes) != 1:
        found = f"several networks, below {', '.join(prefixes)}" if prefixes else "no tensor cls_token"
        raise WeightsError(f"{weights}: {found}; must hold one Vision Transformer")
    prefix = prefixes[0]
    beside = [name for name in weights.tensors if not name.startswith((prefix, *_BESIDE))]
    if beside:
        listed = "\n".join(f"  {name}: in the file, but not used by the network" for name in beside)
        raise WeightsError(f"{weights}: the network lies below {prefix!r}; beside it:\n{listed}")
    return weights.under(prefix)


def _numbered_through(weights: Weights) -> Weights:
    """Names of chunked blocks, `blocks.<chunk>.<block>.`, without the chunk; blocks are counted over all chunks."""
    names = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): name for name in weights.tensors}
    if len(names) < len(weights.tensors):
        raise WeightsError(f"{weights}: several chunks hold a block of the same number; needs numbers over all chunks")
    if all(new == old for new, old in names.items()):
        return weights
    return dataclasses.replace(weights, tensors=RenamedTensors(weights.tensors, names))
