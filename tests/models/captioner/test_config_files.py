"""Shapes from config.json, of the published files and of files that cannot be."""

import copy

import pytest

from jaxad.errors import WeightsError
from jaxad.models.captioner.config import CaptionerConfig, DecoderConfig, Rotary, TowerConfig
from jaxad.models.captioner.config_files import is_internvl, read_config, with_preprocessor
from jaxad.models.weights.config_fields import DEPTH

INTERNVL2_8B = {
    "model_type": "internvl_chat",
    "architectures": ["InternVLChatModel"],
    "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
    "downsample_ratio": 0.5,
    "dynamic_image_size": True,
    "force_image_size": 448,
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "flash_attention_2",
        "bias": False,
        "hidden_act": "silu",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "max_position_embeddings": 32768,
        "model_type": "internlm2",
        "num_attention_heads": 32,
        "num_hidden_layers": 32,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "vocab_size": 92553,
    },
    "max_dynamic_patch": 12,
    "min_dynamic_patch": 1,
    "ps_version": "v2",
    "select_layer": -1,
    "template": "internlm2-chat",
    "use_backbone_lora": 0,
    "use_llm_lora": 0,
    "use_thumbnail": True,
    "vision_config": {
        "architectures": ["InternVisionModel"],
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "image_size": 448,
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-06,
        "model_type": "intern_vit_6b",
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "qk_normalization": False,
        "qkv_bias": True,
    },
}
"""What the published file says of the network."""

INTERNVL3_1B_HF = {
    "architectures": ["InternVLForConditionalGeneration"],
    "downsample_ratio": 0.5,
    "image_seq_length": 256,
    "image_token_id": 151667,
    "model_type": "internvl",
    "projector_hidden_act": "gelu",
    "text_config": {
        "architectures": ["Qwen2ForCausalLM"],
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "hidden_act": "silu",
        "hidden_size": 896,
        "intermediate_size": 4864,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": 14,
        "num_hidden_layers": 24,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "use_sliding_window": False,
        "vocab_size": 151674,
    },
    "vision_config": {
        "attention_bias": True,
        "hidden_act": "gelu",
        "hidden_size": 1024,
        "image_size": [448, 448],
        "intermediate_size": 4096,
        "layer_norm_eps": 1e-06,
        "model_type": "internvl_vision",
        "norm_type": "layer_norm",
        "num_attention_heads": 16,
        "num_channels": 3,
        "num_hidden_layers": 24,
        "patch_size": [14, 14],
        "use_absolute_position_embeddings": True,
        "use_mean_pooling": True,
        "use_qk_norm": False,
    },
}


def changed(config, **changes):
    """The config with fields of its parts changed, each named PART__FIELD or FIELD."""
    config = copy.deepcopy(config)
    for name, value in changes.items():
        part, _, field = name.rpartition("__")
        (config[part] if part else config)[field] = value
    return config


def test_the_default_is_the_papers_captioner():
    assert read_config(INTERNVL2_8B) == CaptionerConfig()
    assert CaptionerConfig().tile_tokens == 256
    assert CaptionerConfig().most == 13


def test_transformers_form():
    config = read_config(INTERNVL3_1B_HF)
    assert config.tower == TowerConfig()
    rotary = Rotary(1e6, "dynamic", 2.0, 32768)
    shape = DecoderConfig(896, 24, 14, 2, 64, 4864, 151674, 1e-6, fused=False, qkv_bias=True, rotary=rotary)
    assert config.decoder == shape
    assert (config.template, config.stops) == ("transformers", (151645,))
    newer = changed(INTERNVL3_1B_HF, text_config__rope_scaling=None, text_config__rope_theta=None)
    newer["text_config"]["rope_parameters"] = {"rope_theta": 1e6, "rope_type": "dynamic", "factor": 2.0}
    assert read_config(newer) == config


def test_logits_come_from_the_embeddings_only_where_no_head_is_there_and_none_is_asked_for():
    assert not read_config(INTERNVL3_1B_HF).decoder.tied
    assert read_config(INTERNVL3_1B_HF, headless=True).decoder.tied
    untied = changed(INTERNVL3_1B_HF, text_config__tie_word_embeddings=False)
    assert not read_config(untied, headless=True).decoder.tied
    assert not read_config(INTERNVL2_8B, headless=True).decoder.tied
    assert read_config(changed(INTERNVL2_8B, llm_config__tie_word_embeddings=True), headless=True).decoder.tied


def test_one_tile_where_the_config_has_no_more():
    config = read_config(changed(INTERNVL2_8B, dynamic_image_size=False))
    assert (config.least_tiles, config.most_tiles, config.most) == (1, 1, 1)


def test_the_preprocessor_says_how_many_tiles_in_transformers_form_alone():
    said = {"min_patches": 2, "max_patches": 6, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    made = with_preprocessor(read_config(INTERNVL3_1B_HF), said)
    assert (made.least_tiles, made.most_tiles, made.normalization.mean) == (2, 6, (0.5,) * 3)
    assert with_preprocessor(read_config(INTERNVL2_8B), said).most_tiles == 12
    with pytest.raises(WeightsError, match="max_patches = 1: must be at least min_patches = 2"):
        with_preprocessor(read_config(INTERNVL3_1B_HF), {**said, "max_patches": 1})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"template": "phi3-chat"}, "template = 'phi3-chat'"),
        ({"select_layer": -4}, "select_layer = -4"),
        ({"ps_version": "v1"}, "ps_version = 'v1'"),
        ({"use_llm_lora": 16}, "use_llm_lora = 16"),
        ({"downsample_ratio": 0.3}, "downsample_ratio = 0.3"),
        ({"max_dynamic_patch": 65}, "max_dynamic_patch = 65"),
        ({"min_dynamic_patch": 13}, "max_dynamic_patch = 12: must be at least min_dynamic_patch = 13"),
        ({"force_image_size": 224}, "force_image_size = 224"),
        ({"llm_config__architectures": ["Phi3ForCausalLM"]}, "Phi3ForCausalLM"),
        ({"llm_config__num_key_value_heads": 5}, "multiple of 5 key heads"),
        ({"llm_config__hidden_size": 4100}, "hidden_size = 4100"),
        ({"llm_config__num_hidden_layers": DEPTH + 1}, "num_hidden_layers"),
        ({"llm_config__rope_scaling": {"type": "yarn", "factor": 2.0}}, "'yarn'"),
        ({"llm_config__rope_scaling": {"type": "dynamic", "factor": 0.5}}, "factor = 0.5"),
        ({"llm_config__use_sliding_window": True}, "use_sliding_window"),
        ({"llm_config": None}, "must be an object"),
        ({"vision_config__norm_type": "batch_norm"}, "norm_type = 'batch_norm'"),
        ({"vision_config__image_size": 450}, "image_size = 450: must be a multiple of 28"),
        ({"vision_config__num_attention_heads": 7}, "multiple of num_attention_heads = 7"),
    ],
)
def test_what_these_networks_cannot_be_is_named(changes, said):
    with pytest.raises(WeightsError) as caught:
        read_config(changed(INTERNVL2_8B, **changes))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_feature_layer": -2}, "vision_feature_layer = -2"),
        ({"vision_config__use_mean_pooling": False}, "use_mean_pooling = False"),
        ({"vision_config__patch_size": [14, 16]}, "patch_size = [14, 16]"),
        ({"text_config__model_type": "qwen3"}, "model_type = 'qwen3'"),
        ({"text_config__eos_token_id": "end"}, "eos_token_id = 'end'"),
    ],
)
def test_what_transformers_form_cannot_be_is_named(changes, said):
    with pytest.raises(WeightsError) as caught:
        read_config(changed(INTERNVL3_1B_HF, **changes))
    assert said in str(caught.value)


def test_other_networks_are_none():
    assert is_internvl(INTERNVL2_8B)
    assert is_internvl(INTERNVL3_1B_HF)
    assert not is_internvl({"model_type": "llava"})
    with pytest.raises(WeightsError, match="no InternVL"):
        read_config({"model_type": "llava"})
