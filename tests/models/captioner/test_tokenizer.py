"""Conversations and their ids."""

import json
import sys

import pytest
import sentencepiece

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.captioner.chat import conversation
from jaxad.models.captioner.tokenizer import load_chat_tokenizer
from tests.models.captioner import made_checkpoints as made


def test_conversations_are_those_of_the_authors_code():
    """Written out from the templates that come with the weights."""
    version_2 = (
        "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
    )
    expected = f"<|im_start|>system\n{version_2}<|im_end|><|im_start|>user\n"
    expected += "<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhat is this?<|im_end|><|im_start|>assistant\n"
    assert conversation("internlm2-chat", "What is this?", 2) == expected
    assert conversation("Hermes-2", "What is this?", 2) == expected
    version_2_5 = (
        "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
    )
    expected = f"<|im_start|>system\n{version_2_5}<|im_end|>\n<|im_start|>user\n"
    expected += "<img><IMG_CONTEXT></img>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert conversation("internvl2_5", "Why?", 1) == expected
    expected = "<|im_start|>user\n<img><IMG_CONTEXT></img>\nWhy?<|im_end|>\n<|im_start|>assistant\n"
    assert conversation("transformers", "Why?", 1) == expected


def test_qwen2(tmp_path):
    special = made.write_qwen2_tokenizer(tmp_path)
    # As published, the config names code, which is not run.
    (tmp_path / "config.json").write_text(json.dumps(made.qwen2_config()))
    tokenizer = load_chat_tokenizer(tmp_path)
    ids = tokenizer.ids("<|im_start|>user\nthin<|im_end|>")
    letters = {letter: number for number, letter in enumerate(made.byte_letters())}
    assert ids == [special["<|im_start|>"], *(letters[x] for x in "userĊ"), 256, 257, special["<|im_end|>"]]
    assert tokenizer.id_of("<IMG_CONTEXT>") == special["<IMG_CONTEXT>"]
    assert tokenizer.id_of("<nothing>") is None
    assert tokenizer.text([*ids, special["<img>"]]) == "user\nthin"


def test_internlm2(tmp_path):
    """Between special tokens sentencepiece says the ids, spaces and line ends included."""
    made.write_internlm2_tokenizer(tmp_path)
    tokenizer = load_chat_tokenizer(tmp_path)
    model = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    size = model.get_piece_size()
    text = "<|im_start|>user\n<img><IMG_CONTEXT></img>\n a bolt 书<|im_end|>"
    start, end, image, image_end, context = (
        tokenizer.id_of(f"<{x}>") for x in ("|im_start|", "|im_end|", "img", "/img", "IMG_CONTEXT")
    )
    assert size <= min(start, end, image, image_end, context)
    expected = [1, start, *model.encode("user\n"), image, context, image_end, *model.encode("\n a bolt 书"), end]
    assert tokenizer.ids(text) == expected
    assert tokenizer.ids("书")[1:] == [model.piece_to_id(f"<0x{byte:02X}>") for byte in "书".encode()]
    assert tokenizer.text(expected) == "user\n\n a bolt 书"
    assert tokenizer.id_of("bolt") is None


def test_without_sentencepiece_the_extra_is_named(tmp_path, monkeypatch):
    made.write_internlm2_tokenizer(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxad\[internlm2\]'"):
        load_chat_tokenizer(tmp_path)


def test_no_tokenizer_and_damaged_ones(tmp_path):
    with pytest.raises(WeightsError, match=r"missing: tokenizer_config\.json"):
        load_chat_tokenizer(tmp_path)
    made.write_internlm2_tokenizer(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    settings["added_tokens_decoder"]["3"] = {"content": 7}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(WeightsError, match="added_tokens_decoder"):
        load_chat_tokenizer(tmp_path)
    made.write_internlm2_tokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"\0" * 50)
    with pytest.raises(WeightsError, match=r"tokenizer\.model"):
        load_chat_tokenizer(tmp_path)
