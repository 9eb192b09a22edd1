"""A tiny tokenizer in the files of CLIP: bytes, bytes that end a word, a few merges, start and end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

MERGES = (
    "c r",
    "a c",
    "cr ac",
    "crac k</w>",
    "h o",
    "ho l",
    "hol e</w>",
    "w i",
    "wi t",
    "wit h</w>",
    "d u",
    "du e</w>",
)


def byte_letters() -> list[str]:
    """One printable letter for each byte, in the order of CLIP's vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def write_tokenizer(folder: Path, merges: Sequence[str] = MERGES, pad: str = "<|endoftext|>") -> dict[str, int]:
    """The files vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json.

    As in Stable Diffusion 2, tokenizer_config.json says the end token is the padding whatever the other file says.
    Returns the vocabulary.
    """
    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))

    def special(content: str) -> dict:
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    names = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}
    config = {name: {"__type": "AddedToken", **special(content)} for name, content in names.items()}
    config |= {"pad_token": "<|endoftext|>", "do_lower_case": True, "errors": "replace", "add_prefix_space": False}
    config |= {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", "name_or_path": "somewhere/else"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    special_tokens = {name: special(content) for name, content in names.items()} | {"pad_token": pad}
    (folder / "special_tokens_map.json").write_text(json.dumps(special_tokens))
    return vocabulary
