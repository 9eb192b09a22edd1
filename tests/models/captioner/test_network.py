"""InternVL's networks: files in and out, and what an answer depends on."""

import dataclasses
import json
from functools import partial

import jax
import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.captioner import decoding
from jaxad.models.captioner.checkpoints import LAYOUTS
from jaxad.models.captioner.config import CaptionerConfig
from jaxad.models.captioner.config_files import read_config
from jaxad.models.captioner.network import abstract_internvl, filled_up, load_internvl
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import find_weights
from jaxad.models.weights.safetensors_file import write_safetensors
from jaxad.nn import module_state
from tests.models.captioner import made_checkpoints as made

STOP = 260


@pytest.fixture(scope="module")
def network():
    return made.drawn(read_config(made.qwen2_config()))


def arrays_of(network):
    return module_state.split(network)[1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("large", [False, True])
def test_every_layout_is_read_as_it_was_written(tmp_path, layout, large):
    config = made.internlm2_config(300) if "InternLM2" in layout else made.qwen2_config()
    if large:
        config["vision_config"] |= {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    if layout.startswith("transformers"):
        config = of_transformers(config)
    network = made.write(tmp_path, config, layout)
    loaded = load_internvl(find_weights(tmp_path))
    expected, found = arrays_of(network), arrays_of(loaded)
    assert expected.keys() == found.keys()
    assert not [path for path in expected if not np.array_equal(expected[path], found[path])]
    assert to_torch(loaded, LAYOUTS[layout]).keys() == find_weights(tmp_path).tensors.keys()


def of_transformers(config):
    """The same network's config.json in transformers' form."""
    vision = dict(config["vision_config"])
    vision |= {"attention_bias": vision.pop("qkv_bias"), "use_qk_norm": vision.pop("qk_normalization")}
    text = {**config["llm_config"], "model_type": "qwen2"}
    return {"model_type": "internvl", "vision_config": vision, "text_config": text}


def test_missing_surplus_and_misshapen_tensors_are_listed_together(tmp_path):
    made.write(tmp_path, made.qwen2_config(), "OpenGVLab, Qwen2 or Llama")
    tensors = {name: np.array(tensor) for name, tensor in find_weights(tmp_path).tensors.items()}
    del tensors["mlp1.0.bias"]
    tensors["mlp1.1.weight"] = tensors["mlp1.1.weight"][:, :-1]
    tensors["vision_model.encoder.layers.0.extra"] = np.zeros(3, np.float32)
    write_safetensors(tmp_path / "model.safetensors", tensors)
    with pytest.raises(WeightsError) as caught:
        load_internvl(find_weights(tmp_path))
    said = str(caught.value)
    assert "mlp1.0.bias: missing" in said
    assert "mlp1.1.weight: shape [32, 63] does not fit" in said
    assert "layers.0.extra: in the file, but not used" in said


def test_a_network_without_head_takes_its_embeddings(tmp_path):
    config = made.qwen2_config()
    config["llm_config"]["tie_word_embeddings"] = True
    network = made.write(tmp_path, config, "OpenGVLab, Qwen2 or Llama")
    tensors = dict(find_weights(tmp_path).tensors)
    del tensors["language_model.lm_head.weight"]
    write_safetensors(tmp_path / "model.safetensors", {name: np.array(tensor) for name, tensor in tensors.items()})
    tied = load_internvl(find_weights(tmp_path)).decoder
    assert tied.head is None
    states = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    expected = states @ np.asarray(network.decoder.tokens[...]).T
    np.testing.assert_allclose(tied.logits(states), expected, atol=1e-4)
    config["llm_config"]["tie_word_embeddings"] = False
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"language_model\.lm_head\.weight: missing"):
        load_internvl(find_weights(tmp_path))


def test_parameters_are_kept_in_the_compute_type_and_placed_one_by_one(tmp_path):
    made.write(tmp_path, made.qwen2_config(), "OpenGVLab, Qwen2 or Llama")
    placed = []
    arrays = arrays_of(load_internvl(find_weights(tmp_path), "bfloat16", lambda array: placed.append(array) or array))
    assert len(placed) == len(arrays)
    types = {path: array.dtype.name for path, array in arrays.items()}
    assert {types[path] for path in types if path.endswith(("kernel", "tokens"))} == {"bfloat16"}
    assert {types[path] for path in types if path.endswith(("scale", "gain"))} == {"float32"}


def question(lengths, room, seed=0):
    """Random ids, those for the image at places 2 to 5, and one random tile."""
    generator = np.random.default_rng(seed)
    ids = generator.integers(0, 250, (len(lengths), room)).astype(np.int32)
    is_image = np.zeros(ids.shape, bool)
    is_image[:, 2:6] = True
    tiles = generator.integers(0, 256, (len(lengths), 1, 28, 28, 3)).astype(np.uint8)
    return ids, is_image, np.array(lengths, np.int32), tiles


def test_a_cached_step_says_what_reading_all_of_it_says(network):
    """Lengths cross the limit above which wavelengths grow."""
    ids, is_image, _, tiles = question([70, 70], 70)
    lengths = np.array([60, 20], np.int32)
    logits, memories = decoding.read(network, ids, is_image, lengths, tiles, 80)
    for number in range(3):
        following = ids[np.arange(2), lengths + number]
        logits, memories = network.decoder.step(following, lengths + number, memories)
    expected, _ = decoding.read(network, ids, is_image, lengths + 3, tiles, 80)
    np.testing.assert_allclose(logits, expected, atol=2e-4)


def test_what_follows_a_question_and_other_rows_change_nothing(network):
    ids, is_image, lengths, tiles = question([12, 30], 30)
    logits, _ = decoding.read(network, ids, is_image, lengths, tiles, 40)
    ids[0, 12:], ids[1] = 7, 9
    more = np.concatenate([tiles, np.full_like(tiles, 200)], axis=1)
    same, _ = decoding.read(network, ids, is_image, lengths, more, 50)
    np.testing.assert_allclose(logits[0], same[0], atol=1e-5)
    assert np.abs(logits[1] - same[1]).max() > 0.1


@pytest.mark.parametrize("at_once", [1, 24, 50])
def test_questions_read_in_parts_are_read_as_all_at_once_are(network, monkeypatch, at_once):
    """Of four questions of twelve tokens one, two or four at a time."""
    asked = question([12, 8, 6, 10], 12)
    expected = decoding.read(network, *asked, 20)
    monkeypatch.setattr(decoding, "AT_ONCE", at_once)
    program = str(jax.make_jaxpr(lambda *asked: decoding.read(network, *asked, 20))(*asked))
    assert f"f32[{min(at_once // 12, 4) or 1},12," in program
    assert ("f32[4,12," in program) == (at_once == 50)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), decoding.read(network, *asked, 20), expected)


@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_those_of_the_vocabulary_alone(tied):
    """Of 301 outputs, which are filled up to 304; ids that only the filled table has are unknown ones."""
    config = made.qwen2_config()
    config["llm_config"] |= {"vocab_size": 301, "tie_word_embeddings": tied}
    network = made.drawn(read_config(config, headless=tied))
    graphdef, arrays = module_state.split(network)
    shapes = {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in arrays.items()}
    wide = filled_up(arrays, network.config.decoder)
    (path,) = [path for path in arrays if wide[path].shape != arrays[path].shape]
    assert filled_up(shapes, network.config.decoder)[path].shape == wide[path].shape
    assert sorted(wide[path].shape)[-1] == 304
    asked = question([12, 8], 12)
    expected, found = (decoding.read(module_state.merge(graphdef, own), *asked, 12)[0] for own in (arrays, wide))
    assert found.shape == (2, 301)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    unknown = module_state.merge(graphdef, wide).decoder.embed(np.array([300, 301]))
    assert np.isnan(unknown).any(axis=1).tolist() == [False, True]


def test_every_tile_and_its_place_count(network):
    ids, is_image, lengths, tiles = question([12], 12)
    logits, _ = decoding.read(network, ids, is_image, lengths, tiles, 12)
    tiles[0, 0, 27, 27] ^= 255
    others, _ = decoding.read(network, ids, is_image, lengths, tiles, 12)
    assert np.abs(logits - others).max() > 1e-3


def test_answers_end_at_a_stop_or_at_their_longest(network):
    """Against steps one by one; what ends an answer is chosen so that it comes early in one row alone."""
    ids, is_image, lengths, tiles = question([12, 20, 16], 20)
    reading = decoding.read(network, ids, is_image, lengths, tiles, 40)
    logits, memories = reading
    expected = []
    for number in range(10):
        expected.append(np.asarray(logits.argmax(-1)))
        logits, memories = network.decoder.step(expected[-1].astype(np.int32), lengths + number, memories)
    expected = np.stack(expected, axis=1)
    stop, row, end = next(
        (word, row, words.index(word))
        for row, words in enumerate(expected.tolist())
        for word in words[1:8]
        if not (np.delete(expected, row, axis=0) == word).any()
    )
    others = np.arange(3) != row

    def write(wanted, longest=10):
        wanted = np.array(wanted)
        return np.asarray(decoding.write(network, *reading, lengths, wanted, (STOP, stop), longest)[0])

    found = write([True, True, True])
    np.testing.assert_array_equal(found[others], expected[others])
    np.testing.assert_array_equal(found[row, : end + 1], expected[row, : end + 1])
    assert set(found[row, end + 1 :].tolist()) == {STOP}
    # Rows of no image are not waited for.
    alone = write(~others)
    np.testing.assert_array_equal(alone[row], found[row])
    assert set(alone[others, end + 1 :].ravel().tolist()) == {STOP}
    np.testing.assert_array_equal(write([True] * 3, 1), expected[:, :1])


def test_linear_positions_are_divided(network):
    scaled = dataclasses.replace(network.config.decoder.rotary, scaling="linear", factor=4.0)
    config = dataclasses.replace(network.config, decoder=dataclasses.replace(network.config.decoder, rotary=scaled))
    ids, is_image, lengths, tiles = question([12], 12)
    plain, _ = decoding.read(network, ids, is_image, lengths, tiles, 12)
    other = module_state.merge(module_state.split(abstract_internvl(config))[0], arrays_of(network))
    divided, _ = decoding.read(other, ids, is_image, lengths, tiles, 12)
    assert np.abs(plain - divided).max() > 0.1


def test_the_papers_captioner_has_eight_billion_parameters():
    arrays = jax.tree.leaves(arrays_of(abstract_internvl(CaptionerConfig(), "bfloat16")))
    assert 8.0e9 < sum(array.size for array in arrays) < 8.2e9
