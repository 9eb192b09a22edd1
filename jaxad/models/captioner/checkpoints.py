"""Where the parameters of an InternVL lie in the files of OpenGVLab and of transformers."""

from __future__ import annotations

from collections.abc import Mapping

from jaxad.models.weights.key_map import ARRAY, CONV, LINEAR, NORM, KeyMap, split_linear


def _below(path: str, prefix: str, rows: KeyMap) -> KeyMap:
    """The rows of a part of the network."""
    return tuple((f"{path}/{place}", f"{prefix}{name}", layout) for place, name, layout in rows)


_TOWER: KeyMap = (
    ("cls_token", "embeddings.class_embedding", ARRAY),
    ("positions", "embeddings.position_embedding", ARRAY),
    ("patch_embed", "embeddings.patch_embedding", CONV),
    ("blocks/{}/norm1", "encoder.layers.{}.norm1", NORM),
    ("blocks/{}/attention/query", "encoder.layers.{}.attn.qkv", split_linear(0, 3)),
    ("blocks/{}/attention/key", "encoder.layers.{}.attn.qkv", split_linear(1, 3)),
    ("blocks/{}/attention/value", "encoder.layers.{}.attn.qkv", split_linear(2, 3)),
    ("blocks/{}/attention/query_norm", "encoder.layers.{}.attn.q_norm", NORM),
    ("blocks/{}/attention/key_norm", "encoder.layers.{}.attn.k_norm", NORM),
    ("blocks/{}/attention/out", "encoder.layers.{}.attn.proj", LINEAR),
    ("blocks/{}/scale1/gain", "encoder.layers.{}.ls1", ARRAY),
    ("blocks/{}/norm2", "encoder.layers.{}.norm2", NORM),
    ("blocks/{}/fc1", "encoder.layers.{}.mlp.fc1", LINEAR),
    ("blocks/{}/fc2", "encoder.layers.{}.mlp.fc2", LINEAR),
    ("blocks/{}/scale2/gain", "encoder.layers.{}.ls2", ARRAY),
)

_TRANSFORMERS_TOWER: KeyMap = (
    ("cls_token", "embeddings.cls_token", ARRAY),
    ("positions", "embeddings.position_embeddings", ARRAY),
    ("patch_embed", "embeddings.patch_embeddings.projection", CONV),
    ("blocks/{}/norm1", "encoder.layer.{}.layernorm_before", NORM),
    ("blocks/{}/attention/query", "encoder.layer.{}.attention.q_proj", LINEAR),
    ("blocks/{}/attention/key", "encoder.layer.{}.attention.k_proj", LINEAR),
    ("blocks/{}/attention/value", "encoder.layer.{}.attention.v_proj", LINEAR),
    ("blocks/{}/attention/query_norm", "encoder.layer.{}.attention.q_norm", NORM),
    ("blocks/{}/attention/key_norm", "encoder.layer.{}.attention.k_norm", NORM),
    ("blocks/{}/attention/out", "encoder.layer.{}.attention.projection_layer", LINEAR),
    ("blocks/{}/scale1/gain", "encoder.layer.{}.lambda_1", ARRAY),
    ("blocks/{}/norm2", "encoder.layer.{}.layernorm_after", NORM),
    ("blocks/{}/fc1", "encoder.layer.{}.mlp.fc1", LINEAR),
    ("blocks/{}/fc2", "encoder.layer.{}.mlp.fc2", LINEAR),
    ("blocks/{}/scale2/gain", "encoder.layer.{}.lambda_2", ARRAY),
)

_LLAMA: KeyMap = (
    ("tokens", "embed_tokens.weight", ARRAY),
    ("blocks/{}/norm1", "layers.{}.input_layernorm", NORM),
    ("blocks/{}/attention/query", "layers.{}.self_attn.q_proj", LINEAR),
    ("blocks/{}/attention/key", "layers.{}.self_attn.k_proj", LINEAR),
    ("blocks/{}/attention/value", "layers.{}.self_attn.v_proj", LINEAR),
    ("blocks/{}/attention/out", "layers.{}.self_attn.o_proj", LINEAR),
    ("blocks/{}/norm2", "layers.{}.post_attention_layernorm", NORM),
    ("blocks/{}/gate", "layers.{}.mlp.gate_proj", LINEAR),
    ("blocks/{}/value", "layers.{}.mlp.up_proj", LINEAR),
    ("blocks/{}/out", "layers.{}.mlp.down_proj", LINEAR),
    ("norm", "norm", NORM),
)
"""Qwen2 and Llama."""

_INTERNLM2: KeyMap = (
    ("tokens", "tok_embeddings.weight", ARRAY),
    ("blocks/{}/norm1", "layers.{}.attention_norm", NORM),
    ("blocks/{}/attention/projection", "layers.{}.attention.wqkv", LINEAR),
    ("blocks/{}/attention/out", "layers.{}.attention.wo", LINEAR),
    ("blocks/{}/norm2", "layers.{}.ffn_norm", NORM),
    ("blocks/{}/gate", "layers.{}.feed_forward.w1", LINEAR),
    ("blocks/{}/value", "layers.{}.feed_forward.w3", LINEAR),
    ("blocks/{}/out", "layers.{}.feed_forward.w2", LINEAR),
    ("norm", "norm", NORM),
)

_ORIGINAL: KeyMap = (
    *_below("tower", "vision_model.", _TOWER),
    ("projector/norm", "mlp1.0", NORM),
    ("projector/fc1", "mlp1.1", LINEAR),
    ("projector/fc2", "mlp1.3", LINEAR),
)


def _of_transformers(prefix: str, decoder: str, head: str) -> KeyMap:
    return (
        *_below("tower", f"{prefix}vision_tower.", _TRANSFORMERS_TOWER),
        ("projector/norm", f"{prefix}multi_modal_projector.layer_norm", NORM),
        ("projector/fc1", f"{prefix}multi_modal_projector.linear_1", LINEAR),
        ("projector/fc2", f"{prefix}multi_modal_projector.linear_2", LINEAR),
        *_below("decoder", decoder, _LLAMA),
        ("decoder/head", head, LINEAR),
    )


LAYOUTS: Mapping[str, KeyMap] = {
    "OpenGVLab, InternLM2": (
        *_ORIGINAL,
        *_below("decoder", "language_model.model.", _INTERNLM2),
        ("decoder/head", "language_model.output", LINEAR),
    ),
    "OpenGVLab, Qwen2 or Llama": (
        *_ORIGINAL,
        *_below("decoder", "language_model.model.", _LLAMA),
        ("decoder/head", "language_model.lm_head", LINEAR),
    ),
    "transformers": _of_transformers("", "language_model.model.", "language_model.lm_head"),
    "transformers, by module": _of_transformers("model.", "model.language_model.", "lm_head"),
}
"""Every layout by its name, in the order of preference."""

HEADS = ("language_model.output.weight", "language_model.lm_head.weight", "lm_head.weight")
"""Names of the head's kernel."""
UNUSED = ("*.rotary_emb.inv_freq",)
"""Tensors that old files keep though they follow from the config."""
