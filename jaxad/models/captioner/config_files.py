"""How InternVL's shapes are read from the two config.json that users have.

OpenGVLab's own repositories (`InternVLChatModel`, with `vision_config` and `llm_config`), and those that end in "-hf",
whose classes are part of transformers (`InternVLForConditionalGeneration`, with `vision_config` and `text_config`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxad.errors import WeightsError
from jaxad.models.captioner.chat import TEMPLATES, TRANSFORMERS
from jaxad.models.captioner.config import CaptionerConfig, DecoderConfig, Rotary, TowerConfig
from jaxad.models.weights.config_fields import ConfigFields, is_number, is_size, shown, transformer_sizes
from jaxad.nn.normalization import Normalization

MOST_TILES = 64
"""Most tiles of an image; published networks have 12 and a thumbnail."""
_CLASSES = {
    "InternLM2ForCausalLM": "internlm2",
    "Qwen2ForCausalLM": "qwen2",
    "LlamaForCausalLM": "llama",
}
"""Decoders of OpenGVLab's repositories, and their model type."""
_DECODER = {"hidden_act": "silu", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
_DECODERS = {
    "internlm2": {
        **_DECODER,
        "vocab_size": 103168,
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
        "bias": True,
    },
    "qwen2": {**_DECODER, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768},
    "llama": {**_DECODER, "vocab_size": 32000, "intermediate_size": 11008, "max_position_embeddings": 2048},
}
"""What the decoders' classes take for a field that a config lacks."""
_VISION = {
    "num_channels": 3,
    "hidden_size": 3200,
    "num_attention_heads": 25,
    "intermediate_size": 12800,
    "num_hidden_layers": 48,
    "patch_size": 14,
    "image_size": 224,
    "hidden_act": "gelu",
    "norm_type": "rms_norm",
    "qk_normalization": True,
    "qkv_bias": False,
    "layer_norm_eps": 1e-6,
}
"""What OpenGVLab's class of the tower takes for a field that a config lacks."""
_TRANSFORMERS_VISION = {
    "num_channels": 3,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "patch_size": 14,
    "image_size": 448,
    "hidden_act": "gelu",
    "norm_type": "layer_norm",
    "use_qk_norm": False,
    "attention_bias": False,
    "layer_norm_eps": 1e-6,
    "use_absolute_position_embeddings": True,
    "use_mean_pooling": True,
}
"""The same of transformers' class."""


def read_config(config: Mapping[str, Any], *, headless: bool = False) -> CaptionerConfig:
    """The network that a config.json describes; fields it lacks have the default of its class.

    Args:
        config: content of config.json.
        headless: whether the weights hold no head for the logits; then they are products with the embeddings, where the
            config allows it.

    Raises:
        WeightsError: another architecture, or settings these networks do not have, all of one part named.
    """
    if not is_internvl(config):
        raise WeightsError(
            f"config.json: model_type = {shown(config.get('model_type'))} is no InternVL; must be internvl_chat or "
            "internvl"
        )
    own = config["model_type"] == "internvl_chat"
    made = _original(config) if own else _of_transformers(config)
    text = config["llm_config" if own else "text_config"]
    tied = headless and text.get("tie_word_embeddings", config.get("tie_word_embeddings", not own)) is not False
    return dataclasses.replace(made, decoder=dataclasses.replace(made.decoder, tied=tied))


def with_preprocessor(made: CaptionerConfig, preprocessor: Mapping[str, Any]) -> CaptionerConfig:
    """The same with what a preprocessor_config.json says: how tiles are normalized and, in transformers' form, how many
    there are.

    Raises:
        WeightsError: values that cannot be.
    """
    changes: dict[str, Any] = {"normalization": Normalization.of(preprocessor, {}, made.normalization)}
    if made.template == TRANSFORMERS:
        known = {"min_patches": made.least_tiles, "max_patches": made.most_tiles}
        c = ConfigFields("preprocessor_config.json", preprocessor, known)
        _check_tiles(c, "min_patches", "max_patches")
        c.stop()
        changes |= {"least_tiles": c["min_patches"], "most_tiles": c["max_patches"]}
    return dataclasses.replace(made, **changes)


def is_internvl(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of an InternVL, in either form."""
    return config.get("model_type") in ("internvl_chat", "internvl")


def _original(config: Mapping[str, Any]) -> CaptionerConfig:
    known = {"downsample_ratio": 0.5, "select_layer": -1, "ps_version": "v1", "template": None, "pad2square": False}
    tiling = {"dynamic_image_size": False, "use_thumbnail": False, "min_dynamic_patch": 1, "max_dynamic_patch": 6}
    c = ConfigFields("config.json", config, {**known, **tiling})
    c.one_of(select_layer=(-1,), ps_version=("v2",), template=tuple(TEMPLATES))
    c.without("pad2square", "use_backbone_lora", "use_llm_lora")
    c.flags("dynamic_image_size", "use_thumbnail")
    _check_tiles(c, "min_dynamic_patch", "max_dynamic_patch")
    shrink = _shrink(c)
    c.stop()
    v = ConfigFields("config.json: vision_config", config.get("vision_config", {}), _VISION)
    tower = _tower(v, qkv_bias="qkv_bias", head_norm="qk_normalization", shrink=shrink)
    if c.get("force_image_size") not in (None, tower.image_size):
        sides = f"force_image_size = {shown(c['force_image_size'])}, but vision_config has {tower.image_size}"
        raise WeightsError(f"config.json cannot be used:\n  {sides}; must be the same")
    t = ConfigFields("config.json: llm_config", config.get("llm_config", {}), {"architectures": None})
    t.check(["architectures"], _is_known_decoder, f"a list of one of {', '.join(_CLASSES)}")
    t.stop()
    return CaptionerConfig(
        tower=tower,
        decoder=_decoder(t, _CLASSES[t["architectures"][0]]),
        shrink=shrink,
        least_tiles=c["min_dynamic_patch"] if c["dynamic_image_size"] else 1,
        most_tiles=c["max_dynamic_patch"] if c["dynamic_image_size"] else 1,
        thumbnail=c["use_thumbnail"],
        template=c["template"],
    )


def _of_transformers(config: Mapping[str, Any]) -> CaptionerConfig:
    known = {"downsample_ratio": 0.5, "projector_hidden_act": "gelu", "vision_feature_layer": -1}
    c = ConfigFields("config.json", config, {**known, "vision_feature_select_strategy": "default"})
    c.one_of(projector_hidden_act=("gelu",), vision_feature_layer=(-1,), vision_feature_select_strategy=("default",))
    shrink = _shrink(c)
    c.stop()
    given = ConfigFields("config.json: vision_config", config.get("vision_config", {}), _TRANSFORMERS_VISION)
    v = ConfigFields(given.where, {name: _one_side(value) for name, value in given.items()}, {})
    v.one_of(use_absolute_position_embeddings=(True,), use_mean_pooling=(True,))
    tower = _tower(v, qkv_bias="attention_bias", head_norm="use_qk_norm", shrink=shrink)
    t = ConfigFields("config.json: text_config", config.get("text_config", {}), {"model_type": "qwen2"})
    t.one_of(model_type=("qwen2", "llama"))
    t.check(["eos_token_id"], lambda value: value is None or bool(ids_of(value)), "an id or a list of ids")
    t.stop()
    decoder = _decoder(t, t["model_type"])
    stops = ids_of(t.get("eos_token_id"))
    return CaptionerConfig(tower=tower, decoder=decoder, shrink=shrink, template=TRANSFORMERS, stops=stops)


def ids_of(value: Any) -> tuple[int, ...]:
    """Token ids that a config gives as one or as a list; none of anything else."""
    values = value if isinstance(value, list) else [value]
    return tuple(values) if all(is_size(one, least=0) for one in values) else ()


def _one_side(value: Any) -> Any:
    """The side of a square that transformers writes as [side, side]."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1] else value


def _is_known_decoder(names: Any) -> bool:
    return isinstance(names, list) and len(names) == 1 and isinstance(names[0], str) and names[0] in _CLASSES


def _shrink(c: ConfigFields) -> int:
    """Patches along a side of those that become one token."""
    fits = c.check(
        ["downsample_ratio"], lambda value: is_number(value) and value <= 1 and round(1 / value) * value == 1, "1 / n"
    )
    return round(1 / c["downsample_ratio"]) if fits else 1


def _check_tiles(c: ConfigFields, least: str, most: str) -> None:
    if c.sizes(least, most, most=MOST_TILES):
        c.check([most], lambda value: value >= c[least], f"at least {least} = {c[least]}")


def _tower(c: ConfigFields, *, qkv_bias: str, head_norm: str, shrink: int) -> TowerConfig:
    c.one_of(hidden_act=("gelu",), num_channels=(3,), norm_type=("layer_norm", "rms_norm"))
    c.depths("num_hidden_layers")
    c.sizes("intermediate_size")
    c.numbers("layer_norm_eps")
    c.flags(qkv_bias, head_norm)
    c.multiple("hidden_size", "num_attention_heads")
    if c.sizes("image_size", "patch_size"):
        square = c["patch_size"] * shrink
        c.check(["image_size"], lambda value: value % square == 0, f"a multiple of {square} pixels")
    c.stop()
    return TowerConfig(
        **transformer_sizes(c),
        patch=c["patch_size"],
        image_size=c["image_size"],
        norm=c["norm_type"],
        head_norm=c[head_norm],
        qkv_bias=c[qkv_bias],
        norm_eps=c["layer_norm_eps"],
    )


def _decoder(given: ConfigFields, kind: str) -> DecoderConfig:
    # As transformers has it: null is what the config does not say.
    said = {name: value for name, value in given.items() if value is not None}
    c = ConfigFields(given.where, said, {**_DECODERS[kind], "rms_norm_eps": 1e-6})
    c.one_of(hidden_act=("silu",))
    c.depths("num_hidden_layers")
    c.sizes("vocab_size", "intermediate_size", "max_position_embeddings", "head_dim")
    c.numbers("rms_norm_eps")
    c.without("use_sliding_window", "mlp_bias")
    c.flags("bias", "attention_bias", "tie_word_embeddings")
    heads, key_heads, head_width = c["num_attention_heads"], c.get("num_key_value_heads"), c.get("head_dim", 0)
    if c.sizes("hidden_size", "num_attention_heads", "num_key_value_heads"):
        key_heads = key_heads or heads
        c.check(["num_attention_heads"], lambda value: value % key_heads == 0, f"a multiple of {key_heads} key heads")
        if not head_width:
            c.multiple("hidden_size", "num_attention_heads")
            head_width = c["hidden_size"] // heads
        if head_width % 2:
            c.problems.append(f"heads of {head_width} channels; must be even")
    rotary = _rotary(c)
    c.stop()
    biased = c.get("bias", False) if kind == "internlm2" else c.get("attention_bias", False)
    return DecoderConfig(
        width=c["hidden_size"],
        depth=c["num_hidden_layers"],
        heads=heads,
        key_heads=key_heads or heads,
        head_width=head_width,
        hidden=c["intermediate_size"],
        vocabulary=c["vocab_size"],
        norm_eps=c["rms_norm_eps"],
        fused=kind == "internlm2",
        qkv_bias=kind == "qwen2" or biased,
        out_bias=kind != "qwen2" and biased,
        rotary=rotary,
    )


def _rotary(c: ConfigFields) -> Rotary:
    """Positions, which older configs give as `rope_theta` and `rope_scaling`, newer ones as `rope_parameters`."""
    said = c.get("rope_parameters", c.get("rope_scaling", {}))
    r = ConfigFields(f"{c.where}: rope_parameters or rope_scaling", said, {"factor": 1.0})
    kind = r.get("rope_type", r.get("type", "default"))
    base = r.get("rope_theta", c.get("rope_theta", 10_000.0))
    known = ("default", "linear", "dynamic")
    if kind not in known:
        c.problems.append(f"positions of type {shown(kind)}: must be one of {', '.join(known)}")
    if not is_number(base) or not is_number(r["factor"]) or r["factor"] < 1:
        c.problems.append(
            f"rope_theta = {shown(base)}, factor = {shown(r['factor'])}: must be numbers, factor at least 1"
        )
    return Rotary(base, kind, r["factor"], c["max_position_embeddings"])
