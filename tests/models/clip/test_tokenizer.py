import shutil

import numpy as np
import pytest

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.tokenizer import DEFAULT, load_tokenizer, token_positions
from tests.models.clip.vocabulary import write_tokenizer


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Folders of tokenizers that pad with the end token and with "!", and their vocabulary."""
    folder = tmp_path_factory.mktemp("tokenizers")
    vocabulary = write_tokenizer(folder / "first" / "tokenizer")
    assert write_tokenizer(folder / "second", pad="!") == vocabulary
    return folder / "first", folder / "second", vocabulary


@pytest.fixture(scope="module")
def first(places):
    return load_tokenizer(places[0])


@pytest.fixture(scope="module")
def second(places):
    return load_tokenizer(places[1])


@pytest.fixture(scope="module")
def open_clip(places):
    return load_tokenizer(places[0], open_clip=True)


def test_padding_is_that_of_the_files(first, second, open_clip, places):
    vocabulary = places[2]
    text = [vocabulary["<|startoftext|>"], vocabulary["with</w>"], vocabulary["crack</w>"], vocabulary["<|endoftext|>"]]
    for tokenizer, pad in ((first, vocabulary["<|endoftext|>"]), (second, 0), (open_clip, 0)):
        ids = tokenizer(["with crack", "with  CRACK\n"])
        assert (ids.shape, ids.dtype) == ((2, 77), np.int32)
        np.testing.assert_array_equal(ids, [text + [pad] * 73] * 2)
        assert (tokenizer.start, tokenizer.end, tokenizer.pad) == (text[0], text[-1], pad)


def test_a_known_tower_says_how_texts_are_filled_up(first, second, places):
    """Stable Diffusion 2 conditions alike whatever tokenizer lies beside it, and so does 1."""
    texts = ["with crack", "residue", "", "crack ! with"]
    zero, end = load_tokenizer(places[0], filling="zero"), load_tokenizer(places[1], filling="end")
    np.testing.assert_array_equal(zero(texts), second(texts))
    np.testing.assert_array_equal(end(texts[:3]), first(texts[:3]))
    fillings = [TextConfig.stable_diffusion(version).filling for version in (1, 2)]
    assert fillings == ["end", "zero"]


def test_a_word_that_is_the_padding_is_the_padding(first, second, places):
    """So it is in Stable Diffusion 2, and only there."""
    assert second.ids("crack !") == [places[2]["crack</w>"], 0]
    assert first.ids("crack !") == [places[2]["crack</w>"], places[2]["!</w>"]]


def test_words_are_split_into_letters_where_no_merge_applies(first, places):
    assert first.ids("residue") == [places[2][token] for token in ("r", "e", "s", "i", "due</w>")]


def test_texts_too_long_keep_their_end(first, places):
    vocabulary = places[2]
    ids = first("crack " * 90)[0]
    assert ids[0] == vocabulary["<|startoftext|>"]
    assert ids[-1] == vocabulary["<|endoftext|>"]
    assert set(ids[1:-1].tolist()) == {vocabulary["crack</w>"]}
    assert len(first.ids("crack " * 90)) == 90
    first("crack " * 75, truncate=False)
    with pytest.raises(ConfigError, match=r"takes 75 tokens.*\n.*crack': 76 tokens\n.*hole': 77 tokens$"):
        first(["hole", "crack " * 75 + "crack", "hole " * 76 + "hole"], truncate=False)


def test_entities_are_resolved_as_by_open_clip_only(first, open_clip):
    assert open_clip.ids("hole &amp;amp; crack") == first.ids("hole & crack")
    assert first.ids("hole &amp; crack") == first.ids("hole & amp; crack") != first.ids("hole & crack")


def test_positions_of_a_phrase(first):
    assert token_positions(first, "hole with ", "crack") == (3,)
    assert token_positions(first, "", "crack") == (1,)
    positions = token_positions(first, "hole with ", "residue")
    ids = first("hole with residue crack")[0]
    assert positions == (3, 4, 5, 6, 7)
    assert ids[list(positions)].tolist() == first.ids("residue")


@pytest.mark.parametrize(
    ("prefix", "phrase", "message"),
    [
        ("hole with", "crack", "end the prefix with a space"),
        ("hole ", "", "no tokens of its own"),
        ("crack " * 75, "hole", "ends at token 76 of the prompt; the text tower takes 75"),
    ],
)
def test_phrases_without_a_place_are_named(first, prefix, phrase, message):
    with pytest.raises(ConfigError, match=message):
        token_positions(first, prefix, phrase)


def test_checkpoint_without_tokenizer_is_told_what_to_name(tmp_path):
    weights = tmp_path / "model.ckpt"
    weights.write_bytes(b"")
    with pytest.raises(WeightsError, match=rf"one file of weights holds no tokenizer files; name, .* {DEFAULT}"):
        load_tokenizer(weights)
    with pytest.raises(WeightsError, match=rf"missing: vocab.json and merges.txt.*{DEFAULT}"):
        load_tokenizer(tmp_path)
    with pytest.raises(WeightsError, match=r"openai/clip-vit-large-patch14.*HF_HUB_OFFLINE"):
        load_tokenizer()


def test_tokenizer_of_something_else_is_refused(places, tmp_path):
    shutil.copytree(places[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / "vocab.json").write_text('{"[CLS]": 0, "a": 1}')
    with pytest.raises(WeightsError, match="no tokenizer of CLIP"):
        load_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{")
    with pytest.raises(WeightsError, match="no tokenizer of CLIP, or damaged files"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", '{"a": ' + "[" * 100_000),
        ("vocab.json", '{"<|startoftext|>": -1, "<|endoftext|>": "a"}'),
        ("vocab.json", "[]"),
        ("merges.txt", "#version\na\nb c d e"),
        ("merges.txt", b"\xff\xfe"),
        ("tokenizer_config.json", '{"bos_token": 3, "eos_token": null}'),
        ("tokenizer_config.json", "3"),
        ("special_tokens_map.json", '{"pad_token": {"content": 3}}'),
    ],
)
def test_damaged_files_are_refused_or_harmless(places, tmp_path, name, content):
    shutil.copytree(places[1], tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        outcome = load_tokenizer(tmp_path)("crack").shape
    except WeightsError as error:
        outcome = str(error)
    assert outcome == (1, 77) or str(tmp_path) in outcome
