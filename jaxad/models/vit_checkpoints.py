"""Where a Vision Transformer's parameters lie in the files that users have (SPEC 6.1, 6.2)."""

from __future__ import annotations

from jaxad.models.weights import ARRAY, CONV, LINEAR, NORM, KeyMap

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
"""Hugging Face files of DINOv2."""

UNUSED = ("embeddings.mask_token",)
"""Tensors of such a file that only pretraining uses."""
