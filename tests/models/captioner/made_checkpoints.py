"""Small random InternVLs in the files of OpenGVLab and of transformers, with tokenizers of bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
from PIL import Image

from jaxad.models.captioner.checkpoints import LAYOUTS
from jaxad.models.captioner.config import CaptionerConfig
from jaxad.models.captioner.config_files import read_config
from jaxad.models.captioner.network import InternVL, abstract_internvl
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.safetensors_file import write_safetensors
from jaxad.nn import module_state
from jaxad.testing import make_parts
from tests.models.clip.vocabulary import byte_letters

VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
VISION |= {"image_size": 28, "patch_size": 7, "layer_norm_eps": 1e-6, "norm_type": "layer_norm"}
TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TEXT |= {"intermediate_size": 48, "rms_norm_eps": 1e-6, "hidden_act": "silu"}
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>")


def qwen2_config(**changes: Any) -> dict[str, Any]:
    """config.json of OpenGVLab's form, with Qwen2."""
    text = {"architectures": ["Qwen2ForCausalLM"], **TEXT, "vocab_size": 256 + 2 + len(SPECIAL)}
    text |= {"max_position_embeddings": 64, "rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    return _original(text, "internvl2_5", changes)


def internlm2_config(vocabulary: int, **changes: Any) -> dict[str, Any]:
    """config.json of OpenGVLab's form, with InternLM2."""
    text = {"architectures": ["InternLM2ForCausalLM"], **TEXT, "vocab_size": vocabulary, "bias": False}
    text |= {"max_position_embeddings": 64, "rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    return _original(text, "internlm2-chat", changes)


def _original(text: dict[str, Any], template: str, changes: dict[str, Any]) -> dict[str, Any]:
    vision = {**VISION, "qkv_bias": True, "qk_normalization": False, "initializer_factor": 0.1, "use_flash_attn": True}
    tiling = {"dynamic_image_size": True, "use_thumbnail": True, "min_dynamic_patch": 1, "max_dynamic_patch": 4}
    config = {"model_type": "internvl_chat", "architectures": ["InternVLChatModel"], "downsample_ratio": 0.5}
    # As published, such a file also names code, which is not run.
    code = {"auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig"}, "force_image_size": 28}
    config |= {"select_layer": -1, "ps_version": "v2", "template": template, **code, **tiling}
    return {**config, "vision_config": vision, "llm_config": text, **changes}


def drawn(config: CaptionerConfig, seed: int = 0) -> InternVL:
    """A network whose answers depend on the image: no branch vanishes, and logits are far apart."""
    return module_state.drawn(abstract_internvl(config), np.random.default_rng(seed), 1.0)


def write(folder: Path, config: dict[str, Any], layout: str, seed: int = 0) -> InternVL:
    """Writes a network, without tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    network = drawn(read_config(config), seed)
    write_safetensors(folder / "model.safetensors", to_torch(network, LAYOUTS[layout]))
    (folder / "config.json").write_text(json.dumps(config))
    return network


def write_qwen2(folder: Path, seed: int = 0) -> InternVL:
    """A small InternVL with Qwen2, as OpenGVLab has it, and its tokenizer."""
    network = write(folder, qwen2_config(), "OpenGVLab, Qwen2 or Llama", seed)
    write_qwen2_tokenizer(folder)
    return network


def write_internlm2(folder: Path, seed: int = 0) -> InternVL:
    """A small InternVL with InternLM2, as OpenGVLab has it, and its tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, internlm2_config(write_internlm2_tokenizer(folder)), "OpenGVLab, InternLM2", seed)


def write_qwen2_tokenizer(folder: Path) -> dict[str, int]:
    """Bytes, two merges and special tokens, in vocab.json, merges.txt and tokenizer_config.json."""
    tokens = [*byte_letters(), "th", "in"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\ni n\n")
    added = {str(len(tokens) + number): _special(token) for number, token in enumerate(SPECIAL)}
    settings = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    settings |= {"model_max_length": 8192, "clean_up_tokenization_spaces": False, "errors": "replace"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": added}))
    return {token: len(tokens) + number for number, token in enumerate(SPECIAL)}


def write_internlm2_tokenizer(folder: Path) -> int:
    """A sentencepiece model of bytes and some words, with special tokens behind it; returns how many ids there are."""
    model = io.BytesIO()
    sentences = ["describe this part in detail", "a gray bolt with a thread\n", "user assistant system\n"] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=310,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    size = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).get_piece_size()
    own = {str(number): _special(token) for number, token in enumerate(("<unk>", "<s>", "</s>"))}
    added = {str(size + number): _special(token) for number, token in enumerate(SPECIAL)}
    settings = {"tokenizer_class": "InternLM2Tokenizer", "added_tokens_decoder": {**own, **added}}
    settings |= {"auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return size + len(SPECIAL)


def _special(content: str) -> dict[str, Any]:
    spaces = {"lstrip": False, "rstrip": False, "single_word": False}
    return {"content": content, "normalized": False, "special": True, **spaces}


def varied_parts(folder: Path, train: int) -> Path:
    """Made-up parts whose training images differ as much as random ones, in sizes too, so that captions differ."""
    made = make_parts(folder, ("disc",), train=train, test=1)
    files = sorted(made.glob("disc/train/good/*"))
    for file, image in zip(files, images(len(files), seed=5), strict=True):
        Image.fromarray(image).save(file)
    return made


def images(number: int, seed: int = 0) -> list[np.ndarray]:
    """Random images of many aspect ratios."""
    generator = np.random.default_rng(seed)
    return [
        np.kron(generator.integers(0, 256, (height, width, 3), np.uint8), np.ones((7, 7, 1), np.uint8))
        for height, width in generator.integers(3, 16, (number, 2))
    ]
