"""Texts and token ids of InternVL's language models, without code from the hub.

Qwen2's and Llama's tokenizers are part of transformers. InternLM2's is not: its repositories bring a class of their own
around a model of sentencepiece. That library makes the ids here, of what stands between special tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from jaxad.errors import ConfigError, WeightsError
from jaxad.io.json_files import VOCABULARY, read_object
from jaxad.io.untrusted import bytes_of, reading
from jaxad.models.weights.config_fields import is_size
from jaxad.models.weights.place import open_place

SENTENCES = "tokenizer.model"
"""File of a sentencepiece model."""
FILES = (
    *("tokenizer_config.json", "tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json"),
    *("special_tokens_map.json", SENTENCES),
)


class ChatTokenizer(Protocol):
    """Makes ids of texts and texts of ids."""

    def ids(self, text: str) -> list[int]:
        """Ids of a conversation from its beginning, with the token that begins texts where there is one."""
        ...

    def id_of(self, token: str) -> int | None:
        """Id of a special token, None where it is no token."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """The text of ids, without special tokens."""
        ...


class HuggingFaceTokenizer:
    """A tokenizer of transformers."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        return [int(number) for number in self.tokenizer(text)["input_ids"]]

    def id_of(self, token: str) -> int | None:
        number = self.tokenizer.get_vocab().get(token)
        return None if number is None else int(number)

    def text(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)


class InternLM2Tokenizer:
    """A sentencepiece model with special tokens beside it.

    Args:
        model: a sentencepiece.SentencePieceProcessor.
        tokens: ids of the special tokens.
        begins: whether texts begin with the model's own token for that.
    """

    def __init__(self, model: Any, tokens: dict[str, int], begins: bool = True):
        self.model, self.tokens, self.begins = model, tokens, begins
        # Longer tokens first, where one begins another.
        alternatives = map(re.escape, sorted(tokens, key=len, reverse=True))
        self._special = re.compile(f"({'|'.join(alternatives)})" if tokens else r"(?!)")
        self._numbers = set(tokens.values())

    def ids(self, text: str) -> list[int]:
        found = [self.model.bos_id()] if self.begins else []
        for part in self._special.split(text):
            found += [self.tokens[part]] if part in self.tokens else self.model.encode(part)
        return found

    def id_of(self, token: str) -> int | None:
        return self.tokens.get(token)

    def text(self, ids: Sequence[int]) -> str:
        # Ids behind the model's are those of special tokens, or of no token.
        size = self.model.get_piece_size()
        return self.model.decode([number for number in ids if number < size and number not in self._numbers])


def load_chat_tokenizer(source: str | Path, revision: str | None = None) -> ChatTokenizer:
    """The tokenizer in a folder or repository of an InternVL.

    Args:
        source: folder or hub id, ORG/NAME or ORG/NAME@REVISION.
        revision: branch, tag or commit on the hub; goes before that in `source`.

    Raises:
        ConfigError: it is InternLM2's, and sentencepiece is not installed.
        WeightsError: no tokenizer there, or damaged files.
    """
    place = open_place(source, revision)
    found = {name: file for name in FILES if (file := place.find(name))}
    if "tokenizer_config.json" not in found:
        raise WeightsError(f"{source}: {place.absent('tokenizer_config.json')}")
    settings: dict[str, Any] = {}
    for name, file in found.items():
        if file.suffix == ".json":
            content = read_object(file, size=VOCABULARY, error=_damaged)
            settings = content if name == "tokenizer_config.json" else settings
        else:
            bytes_of(file, VOCABULARY.bytes, lambda said, file=file: _damaged(f"{file}: {said}"))
    folder = found["tokenizer_config.json"].parent
    if SENTENCES in found and str(settings.get("tokenizer_class")).startswith("InternLM2"):
        return _internlm2(found[SENTENCES], settings)
    # Importing transformers takes seconds, and most of jaxad does without.
    import transformers

    # The Rust library underneath raises bare Exceptions, and panics.
    with _quiet(), reading(lambda said: _damaged(f"{folder}: {said}")):
        made = HuggingFaceTokenizer(
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        )
        # What breaks it shows at the first text.
        made.text(made.ids("a photo of a part"))
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Lets transformers not warn of a config.json of a network that it does not know; only its tokenizer is wanted."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _internlm2(file: Path, settings: dict[str, Any]) -> InternLM2Tokenizer:
    try:
        import sentencepiece
    except ImportError as error:
        needed = "InternLM2's tokenizer needs sentencepiece: pip install 'jaxad[internlm2]'"
        raise ConfigError(f"{file}: {needed}") from error
    added = settings.get("added_tokens_decoder")
    rows = added.items() if isinstance(added, dict) else ()
    tokens = {row["content"]: int(number) for number, row in rows if _is_token(number, row)}
    begins = settings.get("add_bos_token", True)
    if not tokens or len(tokens) < len(rows) or not isinstance(begins, bool):
        raise _damaged(f"{file.with_name('tokenizer_config.json')}: added_tokens_decoder or add_bos_token is odd")
    model = sentencepiece.SentencePieceProcessor()
    with reading(lambda said: _damaged(f"{file}: {said}")):
        model.LoadFromSerializedProto(bytes_of(file, VOCABULARY.bytes, _damaged))
        made = InternLM2Tokenizer(model, tokens, begins)
        made.text(made.ids("a photo of a part"))
    return made


def _is_token(number: Any, row: Any) -> bool:
    """Whether an entry of `added_tokens_decoder` is a token, and one that takes no spaces around it."""
    is_number = isinstance(number, str) and re.fullmatch(r"\d{1,8}", number) is not None and is_size(int(number), 0)
    if not is_number or not isinstance(row, dict) or not isinstance(row.get("content"), str) or not row["content"]:
        return False
    return not any(row.get(name) for name in ("lstrip", "rstrip", "single_word"))


def _damaged(said: str) -> WeightsError:
    return WeightsError(f"{said}: no tokenizer, or damaged files")
