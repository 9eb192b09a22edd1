"""Texts to the token ids that CLIP's text towers take, by transformers' tokenizer."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import ConfigError, WeightsError
from jaxad.io.json_files import VOCABULARY, read_object
from jaxad.io.places import expanded
from jaxad.io.untrusted import bytes_of, reading
from jaxad.models.clip.config import Filling
from jaxad.models.weights.place import open_place

DEFAULT = "openai/clip-vit-large-patch14"
"""Where the one vocabulary that all CLIPs share is taken from for weights that come without a tokenizer."""

FILES = (
    *("vocab.json", "merges.txt", "tokenizer.json"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)


class CLIPTokenizer:
    """Tokenizer of a text tower.

    Args:
        tokenizer: a transformers.CLIPTokenizer.
        context: number of ids of every text.
        pad: id that fills texts up, None for the tokenizer's own.
        open_clip: whether HTML entities are resolved first, as open_clip does and transformers does not.

    Attributes:
        start, end, pad: ids of the token before every text, of the one after it, and of the filling.
    """

    def __init__(
        self,
        tokenizer: Any,
        context: int = 77,
        pad: int | None = None,
        open_clip: bool = False,
    ):
        self.tokenizer, self.context, self.open_clip = tokenizer, context, open_clip
        self.start, self.end = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
        self.pad = int(tokenizer.pad_token_id) if pad is None else pad

    def __call__(self, texts: str | Sequence[str], *, truncate: bool = True) -> np.ndarray:
        """Ids of `texts`, in lower case and with runs of white space as one.

        Args:
            texts: one or several.
            truncate: whether texts that are too long lose what is too much before their end token.

        Returns:
            int32 [b context]: start, text, end, padding.

        Raises:
            ConfigError: texts too long with `truncate` off; names them all.
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        found, most = [self.ids(text) for text in texts], self.context - 2
        long = {text: len(ids) for text, ids in zip(texts, found, strict=True) if len(ids) > most}
        if long and not truncate:
            listed = (f"  prompt {text!r}: {count} tokens" for text, count in long.items())
            raise ConfigError("\n".join([f"the text tower takes {most} tokens; these are more:", *listed]))
        rows = np.full((len(texts), self.context), self.pad, np.int32)
        for row, ids in zip(rows, found, strict=True):
            ids = [self.start, *ids[:most], self.end]
            row[: len(ids)] = ids
        return rows

    def ids(self, text: str) -> list[int]:
        """Ids of one text of any length, without start, end and padding."""
        if self.open_clip:
            # Twice, as open_clip does for entities that were escaped twice.
            text = html.unescape(html.unescape(text))
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


def load_tokenizer(
    source: str | Path = DEFAULT,
    revision: str | None = None,
    subfolder: str | None = None,
    *,
    context: int = 77,
    open_clip: bool = False,
    filling: Filling | None = None,
) -> CLIPTokenizer:
    """The tokenizer that belongs to a checkpoint.

    Args:
        source: folder or hub id with tokenizer files, in itself or in its subfolder `tokenizer` as diffusers has it.
            Files of open_clip, OpenAI and LDM hold none: theirs is `DEFAULT`, or any CLIP checkpoint of transformers.
        revision: branch, tag or commit on the hub.
        subfolder: where the files lie, None to look in both places.
        context: number of ids of every text.
        open_clip: whether the tokens are for a tower of open_clip, which is filled up with id 0 and resolves HTML
            entities. Else the padding is what the files say: the end token for Stable Diffusion 1.x and OpenAI's
            models, "!" (id 0) for Stable Diffusion 2.x, whose special_tokens_map.json goes before its
            tokenizer_config.json.
        filling: what texts are filled up with where the tower is known, and its files may lack a tokenizer of its own.

    Raises:
        WeightsError: no tokenizer there, or not one of CLIP.
    """
    folder = _find(source, revision, ("tokenizer", "") if subfolder is None else (subfolder,))
    _check_files(folder)
    # Importing transformers takes seconds, and most of jaxad does without.
    import transformers

    # The Rust library underneath raises bare Exceptions, and panics.
    with reading(lambda said: WeightsError(f"{folder}: no tokenizer of CLIP, or damaged files ({said})")):
        tokenizer = transformers.CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        if missing := {"<|startoftext|>", "<|endoftext|>"} - tokenizer.get_vocab().keys():
            raise WeightsError(f"{folder}: no tokenizer of CLIP: the vocabulary lacks {', '.join(sorted(missing))}")
        if filling == "zero":
            # Then a word that is the filling is the filling, as with Stable Diffusion 2's own files.
            tokenizer.add_special_tokens({"pad_token": tokenizer.convert_ids_to_tokens(0)})
        pads = {None: None, "zero": 0, "end": int(tokenizer.eos_token_id)}
        made = CLIPTokenizer(tokenizer, context, pad=pads["zero" if open_clip else filling], open_clip=open_clip)
        # What breaks it shows at the first text.
        made("a photo of a part")
    return made


def _check_files(folder: Path) -> None:
    """Raises WeightsError naming a file that is too large, or JSON that is damaged or nested without end."""
    for name in FILES:
        file = folder / name
        if file.is_file() and file.suffix == ".json":
            read_object(file, size=VOCABULARY, error=_not_clip)
        elif file.is_file():
            bytes_of(file, VOCABULARY.bytes, lambda said, file=file: _not_clip(f"{file}: {said}"))


def _not_clip(said: str) -> WeightsError:
    return WeightsError(f"{said}: no tokenizer of CLIP, or damaged files")


def token_positions(tokenizer: CLIPTokenizer, prefix: str, phrase: str) -> tuple[int, ...]:
    """Places of the tokens of `phrase` in the ids of every text that begins with `prefix + phrase`.

    Args:
        tokenizer: of the text tower.
        prefix: the text before, with the space that ends it, e.g. "a photo of a bottle with ".
        phrase: one or more whole words, e.g. "residue", which is two tokens.

    Returns:
        Places counted from 0, where the start token is.

    Raises:
        ConfigError: the phrase is empty, does not begin a word of its own, or lies beyond the text tower's context.
    """
    before, both = tokenizer.ids(prefix), tokenizer.ids(prefix + phrase)
    if len(both) <= len(before) or both[: len(before)] != before:
        raise ConfigError(f"phrase {phrase!r}: has no tokens of its own after {prefix!r}; end the prefix with a space")
    if len(both) > (most := tokenizer.context - 2):
        raise ConfigError(f"phrase {phrase!r}: ends at token {len(both)} of the prompt; the text tower takes {most}")
    return tuple(range(1 + len(before), 1 + len(both)))


def _find(source: str | Path, revision: str | None, subfolders: Sequence[str]) -> Path:
    """The folder in which the tokenizer files lie, downloaded where they are on the hub."""
    instead = f"name, as the tokenizer, a folder or hub id that has them, such as {DEFAULT}"
    if expanded(source).is_file():
        raise WeightsError(f"{source}: one file of weights holds no tokenizer files; {instead}")
    said = []
    for subfolder in subfolders:
        place = open_place(source, revision, subfolder)
        found = {name: file for name in FILES if (file := place.find(name))}
        if "tokenizer.json" in found or {"vocab.json", "merges.txt"} <= found.keys():
            return next(iter(found.values())).parent
        said.append(place.absent("vocab.json and merges.txt, or tokenizer.json"))
    raise WeightsError(f"{source}: {said[-1]}; {instead}")
