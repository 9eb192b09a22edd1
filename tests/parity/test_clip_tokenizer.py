"""Tokens of CLIP with its full vocabulary against transformers and open_clip."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import open_clip
import pytest
import transformers

from jaxad.models.clip.tokenizer import load_tokenizer, token_positions
from tests.models.clip.vocabulary import byte_letters, write_tokenizer

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def vocabulary_folder(tmp_path_factory):
    """Files of transformers' tokenizer with the full vocabulary, made from open_clip's."""
    packed = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    merges = gzip.decompress(packed.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    folder = tmp_path_factory.mktemp("vocabulary")
    vocabulary = write_tokenizer(folder / "first", merges)
    write_tokenizer(folder / "second", merges, pad="!")
    assert len(vocabulary) == 49408
    assert vocabulary["<|endoftext|>"] == 49407
    assert byte_letters() == list(open_clip.tokenizer.bytes_to_unicode().values())
    return folder


PROMPT = "a close-up cropped png photo of a bottle with crack for anomaly segmentation"


def test_tokens_of_the_papers_prompts(vocabulary_folder):
    tokenizer = load_tokenizer(vocabulary_folder / "second")
    ids = tokenizer(PROMPT)[0].tolist()
    expected = [320, 2660, 268, 705, 31139, 20992, 1125, 539, 320, 5392, 593, 10334, 556, 46811, 10551, 9512]
    assert ids == [49406, *expected, 49407] + [0] * 59
    prefix = "a close-up cropped png photo of a bottle with "
    assert token_positions(tokenizer, prefix, "crack") == (12,)
    assert token_positions(tokenizer, prefix, "residue") == (12, 13)
    assert token_positions(tokenizer, prefix.replace("bottle", "printed circuit board"), "hole") == (14,)
    words = {"crack": 10334, "hole": 5341, "damage": 6822, "poke": 23186, "scratch": 13258, "damaged": 13568}
    words |= {"perfect": 1878, "zipper": 33670, "hazelnut": 35816, "toothbrush": 36841}
    assert {word: tokenizer.ids(word) for word in words} == {word: [token] for word, token in words.items()}
    split = {"residue": [2152, 2887], "transistor": [32236, 17740], "metal nut": [4044, 6491], "fryum": [936, 7259]}
    split |= {"chewinggum": [983, 8141, 11235], "printed circuit board": [7978, 9801, 1972]}
    assert {words: tokenizer.ids(words) for words in split} == split


@pytest.mark.parametrize("name", ["first", "second"])
def test_tokens_equal_those_of_both_libraries(vocabulary_folder, name):
    texts = [PROMPT, "  A Photo,\tof\n the flawless   pill!? ", "naïve café № 5 – it's 90% 漢字 😀", "", "crack " * 100]
    theirs = transformers.CLIPTokenizer.from_pretrained(vocabulary_folder / name)
    expected = theirs(texts, padding="max_length", truncation=True, max_length=77, return_tensors="np")["input_ids"]
    np.testing.assert_array_equal(load_tokenizer(vocabulary_folder / name)(texts), expected)
    if name == "first":
        texts.append("rust &amp;amp; dust &lt;1 mm")
        by_open_clip = load_tokenizer(vocabulary_folder / name, open_clip=True)(texts)
        np.testing.assert_array_equal(by_open_clip, open_clip.tokenize(texts).numpy())
