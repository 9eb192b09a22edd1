"""Where the parameters of CLIP lie in the files of transformers, open_clip, OpenAI and LDM."""

from __future__ import annotations

from jaxad.models.weights.key_map import ARRAY, CONV, LINEAR, MATRIX, NORM, KeyMap, split_linear


def _below(path: str, name: str, rows: KeyMap) -> KeyMap:
    """The rows with everything of ours below `path` and everything of theirs below `name`."""
    return tuple((path + ours, name + theirs, layout) for ours, theirs, layout in rows)


_HUGGINGFACE_BLOCKS = _below(
    "blocks/{}/",
    "encoder.layers.{}.",
    (
        ("norm1", "layer_norm1", NORM),
        ("attention/query", "self_attn.q_proj", LINEAR),
        ("attention/key", "self_attn.k_proj", LINEAR),
        ("attention/value", "self_attn.v_proj", LINEAR),
        ("attention/out", "self_attn.out_proj", LINEAR),
        ("norm2", "layer_norm2", NORM),
        ("mlp/fc1", "mlp.fc1", LINEAR),
        ("mlp/fc2", "mlp.fc2", LINEAR),
    ),
)

_OPEN_CLIP_BLOCKS = _below(
    "blocks/{}/",
    "transformer.resblocks.{}.",
    (
        ("norm1", "ln_1", NORM),
        ("attention/query", "attn.in_proj", split_linear(0, 3, "_")),
        ("attention/key", "attn.in_proj", split_linear(1, 3, "_")),
        ("attention/value", "attn.in_proj", split_linear(2, 3, "_")),
        ("attention/out", "attn.out_proj", LINEAR),
        ("scale1/gain", "ls_1.gamma", ARRAY),
        ("norm2", "ln_2", NORM),
        ("mlp/fc1", "mlp.c_fc", LINEAR),
        ("mlp/fc2", "mlp.c_proj", LINEAR),
        ("scale2/gain", "ls_2.gamma", ARRAY),
    ),
)

_HUGGINGFACE_VISION: KeyMap = (
    ("class_embedding", "embeddings.class_embedding", ARRAY),
    ("patch_embed", "embeddings.patch_embedding", CONV),
    ("positions", "embeddings.position_embedding.weight", ARRAY),
    # The spelling is theirs.
    ("pre_norm", "pre_layrnorm", NORM),
    *_HUGGINGFACE_BLOCKS,
    ("norm", "post_layernorm", NORM),
)

_HUGGINGFACE_TEXT: KeyMap = (
    ("tokens", "embeddings.token_embedding.weight", ARRAY),
    ("positions", "embeddings.position_embedding.weight", ARRAY),
    *_HUGGINGFACE_BLOCKS,
    ("norm", "final_layer_norm", NORM),
)

_OPEN_CLIP_VISION: KeyMap = (
    ("class_embedding", "class_embedding", ARRAY),
    ("patch_embed", "conv1", CONV),
    ("positions", "positional_embedding", ARRAY),
    ("pre_norm", "ln_pre", NORM),
    *_OPEN_CLIP_BLOCKS,
    ("norm", "ln_post", NORM),
    ("projection", "proj", MATRIX),
)

_OPEN_CLIP_TEXT: KeyMap = (
    ("tokens", "token_embedding.weight", ARRAY),
    ("positions", "positional_embedding", ARRAY),
    *_OPEN_CLIP_BLOCKS,
    ("norm", "ln_final", NORM),
    ("projection", "text_projection", MATRIX),
)

TEXT_LAYOUTS: dict[str, KeyMap] = {
    "transformers": (*_HUGGINGFACE_TEXT, ("projection", "text_projection", LINEAR)),
    "transformers, text_model": (
        *_below("", "text_model.", _HUGGINGFACE_TEXT),
        ("projection", "text_projection", LINEAR),
    ),
    "open_clip": _OPEN_CLIP_TEXT,
    "open_clip, text": _below("", "text.", _OPEN_CLIP_TEXT),
}
"""The ways in which the tensors of a text tower are named; transformers 5 saves a CLIPTextModel in the first."""

_HUGGINGFACE_CLIP_VISION: KeyMap = (
    *_below("", "vision_model.", _HUGGINGFACE_VISION),
    ("projection", "visual_projection", LINEAR),
)


def _both(vision: KeyMap, text: str) -> KeyMap:
    towers = (*_below("vision/", "", vision), *_below("text/", "", TEXT_LAYOUTS[text]))
    return (*towers, ("logit_scale", "logit_scale", ARRAY))


CLIP_LAYOUTS: dict[str, KeyMap] = {
    "transformers": _both(_HUGGINGFACE_CLIP_VISION, "transformers, text_model"),
    "open_clip": _both(_below("", "visual.", _OPEN_CLIP_VISION), "open_clip"),
    "open_clip, text": _both(_below("", "visual.", _OPEN_CLIP_VISION), "open_clip, text"),
}
"""The ways in which the tensors of a whole CLIP are named; OpenAI's own files are like open_clip's."""

BUFFERS = ("*position_ids", "*attn_mask", "input_resolution", "context_length", "vocab_size")
"""Tensors of such files that are no parameters."""

NOT_TEXT = ("vision_model.*", "visual_projection.*", "visual.*", "logit_scale")
"""Tensors of a whole CLIP that its text tower has no use for."""
