import jax
import numpy as np
import pytest

from jaxad.config import CLIPFusionConfig
from jaxad.detectors.clipfusion.prompts import clip_embeddings, clip_prompts, object_words, state_texts
from jaxad.errors import ConfigError
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.tokenizer import load_tokenizer
from jaxad.models.clip.towers import abstract_text_tower
from jaxad.nn import module_state
from tests.models.clip.vocabulary import write_tokenizer
from tests.models.stable_diffusion.made_checkpoints import randomized


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    return folder, len(write_tokenizer(folder, pad="!</w>"))


@pytest.fixture(scope="module")
def tokenizers(vocabulary, tmp_path_factory):
    """By what they fill texts up with: as Stable Diffusion 2, open_clip and Stable Diffusion 1.5 do."""
    folder = tmp_path_factory.mktemp("end")
    write_tokenizer(folder)
    found = {
        "!": load_tokenizer(vocabulary[0]),
        "0": load_tokenizer(vocabulary[0], open_clip=True),
        "end": load_tokenizer(folder),
    }
    assert len({tokenizer.pad for tokenizer in found.values()}) == 3
    assert found["end"].pad == found["end"].end
    return found


@pytest.fixture(scope="module")
def tower(vocabulary):
    shape = TextConfig(
        width=8, depth=1, heads=2, hidden=8, vocabulary=vocabulary[1], projection=4, end=vocabulary[1] - 1
    )
    return randomized(abstract_text_tower(shape))


WORDS = {
    "metal_nut": "metal nut",
    "pcb3": "printed circuit board",
    "macaroni2": "macaroni",
    "pipe_fryum": "pipe fryum",
    "chewinggum": "chewing gum",
    "cable": "power cord",
}


@pytest.mark.parametrize(("category", "words"), WORDS.items())
def test_words_of_categories(category, words):
    assert object_words(category, CLIPFusionConfig(objects=("cable=power cord",))) == words


def test_prompts_of_clip():
    normal, abnormal = clip_prompts("metal_nut", CLIPFusionConfig())
    assert normal == ["a good, cropped picture of the perfect metal nut for classification"]
    assert abnormal == ["a good, cropped picture of the damaged metal nut for classification"]
    normal, abnormal = clip_prompts("bottle", CLIPFusionConfig.preset("winclip"))
    # 7 normal and 4 anomalous states in 22 templates.
    assert (len(set(normal)), len(set(abnormal))) == (154, 88)
    assert "a photo of the bottle without defect for visual inspection" in normal
    assert "a jpeg corrupted photo of a bottle with flaw" in abnormal
    normal, _ = clip_prompts("metal_nut", CLIPFusionConfig.preset("caoyunkang-winclip"))
    assert normal[0] == "a cropped photo of the metal_nut"
    normal, abnormal = clip_prompts("bottle", CLIPFusionConfig.preset("accurate-winclip"))
    # 21 templates, of which one occurs twice.
    assert (len(normal), len(set(normal)), len(abnormal)) == (147, 140, 84)
    assert normal.count("a jpeg corrupted photo of the flawless bottle.") == 2
    assert "a cropped photo of a bottle." not in normal
    assert "a photo of a bottle without defect for visual inspection." in normal


def test_directions_are_means_of_what_the_tower_says(vocabulary, tower):
    tokenizer = load_tokenizer(vocabulary[0], open_clip=True)
    config = CLIPFusionConfig(prompt_mode="winclip-ensemble")
    found = clip_embeddings(tower, tokenizer, ("nut", "cap"), config)
    _, prompts = clip_prompts("cap", config)
    graphdef, arrays = module_state.split(tower)
    say = jax.jit(lambda arrays, ids: module_state.merge(graphdef, arrays)(ids).embedding)
    mean = np.asarray(say(arrays, tokenizer(prompts))).mean(axis=0)
    np.testing.assert_allclose(found[1, 1], mean / np.linalg.norm(mean), atol=1e-5)
    assert found.shape == (2, 2, 4)


@pytest.mark.parametrize("padding", ["!", "0", "end"])
@pytest.mark.parametrize("category", ["nut", "metal_nut"])
def test_states_are_found_whatever_the_objects_words_and_the_padding(tokenizers, tower, category, padding):
    tokenizer = tokenizers[padding]
    config = CLIPFusionConfig(states=("crack", "residue"), map_prompt="a [object] with [state] now")
    texts = state_texts(tower, tokenizer, (category,), config)
    ids = tokenizer(f"a {object_words(category, config)} with residue now")[0]
    own = ids[texts.places[0, 1]]
    np.testing.assert_array_equal(own, tokenizer.ids("residue"))
    # "crack" is one token; its places are filled up, and marked so.
    assert texts.used.tolist() == [[[True, *[False] * (len(own) - 1)], [True] * len(own)]]
    ids = tokenizer(f"a {object_words(category, config)} with crack now")[0].tolist()
    assert set(texts.places[0, 0]) == {ids.index(tokenizer.ids("crack")[0])}
    np.testing.assert_allclose(texts.weights, [[0.5, 0.5]])


def test_categories_with_other_numbers_of_states(vocabulary, tower):
    tokenizer = load_tokenizer(vocabulary[0])
    config = CLIPFusionConfig(states=("crack", "hole"), class_states=("nut=hole",), map_prompt="[state] on [object]")
    texts = state_texts(tower, tokenizer, ("nut", "cap"), config)
    np.testing.assert_allclose(texts.weights, [[1, 0], [0.5, 0.5]])
    np.testing.assert_array_equal(texts.queries[0, 0], texts.queries[0, 1])
    alone = state_texts(tower, tokenizer, ("cap",), config)
    np.testing.assert_allclose(texts.queries[1], alone.queries[0], atol=1e-5)
    np.testing.assert_allclose(texts.reference[1], alone.reference[0], atol=1e-5)
    assert np.abs(texts.queries[1, 0] - texts.queries[1, 1]).max() > 0.1


def test_long_prompts_are_refused(vocabulary, tower):
    tokenizer = load_tokenizer(vocabulary[0])
    with pytest.raises(ConfigError, match="tokens"):
        clip_embeddings(tower, tokenizer, ("x" * 90,), CLIPFusionConfig())
    config = CLIPFusionConfig(map_prompt="a [object] with [state]", states=("crack", "hole"))
    with pytest.raises(ConfigError, match="takes 75 tokens") as error:
        state_texts(tower, tokenizer, ("x" * 90, "nut"), config)
    # Every prompt of that category and none of the other.
    assert [line.rpartition(" with ")[2] for line in str(error.value).splitlines()[1:3]] == [
        "crack': 93 tokens",
        "hole': 93 tokens",
    ]
    assert len(str(error.value).splitlines()) == 4
