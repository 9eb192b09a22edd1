"""Captions by InternVL in JAX: batches, devices, shards, and what of other files is refused."""

import json

import jax
import pytest

import jaxad
from jaxad import parallel
from jaxad.config import DataConfig
from jaxad.detectors.vlmdiff.captioning import caption
from jaxad.detectors.vlmdiff.internvl import InternVLCaptioner, captions_in_jax, stops
from jaxad.errors import ConfigError, WeightsError
from jaxad.models.captioner.config import CaptionerConfig
from jaxad.models.captioner.tokenizer import load_chat_tokenizer
from tests.models.captioner import made_checkpoints as made

PROMPT = "describe this part"
ALL = DataConfig(holdout=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("internvl")
    made.write_qwen2(folder)
    return folder


@pytest.fixture(scope="module")
def captioner(folder):
    return InternVLCaptioner(str(folder), PROMPT, max_new_tokens=12, batch_size=4)


def test_an_answer_depends_on_its_image_alone(captioner):
    images = made.images(4, seed=3)
    together = captioner.answers(images)
    assert together == [captioner.answers([image])[0] for image in images]
    assert together == captioner.answers(images[::-1])[::-1]
    assert len(set(map(tuple, together))) > 1
    assert all(len(ids) <= 12 for ids in together)


def test_texts_are_one_line_without_what_ends_them(captioner, monkeypatch):
    images = made.images(2)
    letters = {letter: number for number, letter in enumerate(made.byte_letters())}
    end = captioner.tokenizer.id_of("<|im_end|>")
    written = [[letters["a"], letters["Ġ"], letters["Ċ"], letters["b"]], [letters["c"], letters["d"], end]]
    monkeypatch.setattr(captioner, "answers", lambda images: written)
    assert captioner(images) == ["a b", "cd"]


def test_programs_are_compiled_once_for_few_sizes(folder):
    captioner = InternVLCaptioner(str(folder), PROMPT, max_new_tokens=2, batch_size=2)
    shapes = {len(captioner._tiles(image)) for image in made.images(12)}
    assert shapes == {1, 3, 4, 5}
    for image in made.images(12):
        captioner.answers([image])
    assert captioner._read._cache_size() == 3
    assert captioner._write._cache_size() == 1


def test_devices_that_share_the_parameters_answer_as_one(captioner, folder):
    """Kernels of these sizes are all replicated by default, which would show nothing."""
    images = made.images(4, seed=1)
    expected = captioner.answers(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "SMALLEST_SHARDED", 1)
        divided = InternVLCaptioner(str(folder), PROMPT, max_new_tokens=12, batch_size=4, fsdp=2)
    kernel = divided._arrays["decoder/blocks/0/gate/kernel"]
    assert kernel.addressable_shards[0].data.shape == (32, 24)
    assert divided.mesh.shape["fsdp"] == 2
    assert divided.answers(images) == expected
    alone = parallel.make_mesh(devices=jax.devices()[:1])
    assert (
        InternVLCaptioner(str(folder), PROMPT, max_new_tokens=12, batch_size=4, mesh=alone).answers(images) == expected
    )


def test_batches_that_do_not_divide_are_refused_before_weights_are_read(tmp_path):
    with pytest.raises(ConfigError, match="batch_size = 3: must be a multiple of the number of devices"):
        InternVLCaptioner(str(tmp_path), PROMPT, batch_size=3)


def test_a_prompt_with_tokens_of_the_network_is_refused(folder):
    with pytest.raises(ConfigError, match="prompt: holds <IMG_CONTEXT>"):
        InternVLCaptioner(str(folder), "What is <IMG_CONTEXT>?", batch_size=2)


def test_a_tokenizer_of_another_network_is_refused(folder, tmp_path):
    config = made.qwen2_config()
    config["llm_config"]["vocab_size"] = 262
    made.write(tmp_path, config, "OpenGVLab, Qwen2 or Llama")
    made.write_qwen2_tokenizer(tmp_path)
    with pytest.raises(WeightsError, match="of 262 that the network knows; it belongs to another network"):
        InternVLCaptioner(str(tmp_path), PROMPT, batch_size=2)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text())
    added = settings["added_tokens_decoder"].items()
    kept = {number: token for number, token in added if token["content"] != "<img>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**settings, "added_tokens_decoder": kept}))
    with pytest.raises(WeightsError, match="lacks the tokens <img>"):
        InternVLCaptioner(str(tmp_path), PROMPT, batch_size=2)


def test_what_ends_an_answer(folder):
    tokenizer, config = load_chat_tokenizer(folder), CaptionerConfig(stops=(7,))
    end = tokenizer.id_of("<|im_end|>")
    assert stops(tokenizer, CaptionerConfig(), {}) == (end,)
    assert stops(tokenizer, config, {}) == (end, 7)
    assert stops(tokenizer, config, {"eos_token_id": [9, end]}) == (end, 9)
    assert stops(tokenizer, config, {"eos_token_id": 9}) == (end, 9)


def test_which_models_are_meant(folder, tmp_path):
    assert captions_in_jax(str(folder))
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    assert not captions_in_jax(str(tmp_path))
    assert not captions_in_jax("org/absent")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        captions_in_jax(str(tmp_path))


def test_resumed_and_divided_captions_are_those_of_one_run(folder, tmp_path):
    """Batches stay whole batches of the data set, wherever a run was interrupted and however it is divided."""
    seen, images = [], jaxad.data.load(f"folder:{made.varied_parts(tmp_path / 'parts', 14)}", config=ALL).train

    def captions(out, *, fails_after=None, **options):
        def make():
            captioner, calls = InternVLCaptioner(str(folder), PROMPT, max_new_tokens=12, batch_size=2), []

            def describe(images):
                if len(calls) == fails_after:
                    raise KeyboardInterrupt
                calls.append(len(images))
                return captioner(images)

            seen.append(calls)
            return describe

        settings = {"out_dir": tmp_path / out, "data": "folder:parts", "model": str(folder), "prompt": PROMPT}
        return caption(images, make, batch_size=2, max_new_tokens=12, **settings, **options)

    found = captions("whole")
    whole = found.folder
    assert len(set(found.captions.texts)) > 2
    with pytest.raises(KeyboardInterrupt):
        captions("resumed", fails_after=3)
    journal = next((tmp_path / "resumed").rglob("*.journal"))
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:5]))
    assert seen[-1] == [2, 2, 2]
    resumed = captions("resumed").folder
    assert seen[-1] == [2] * 5
    assert captions("divided", shard=(1, 2)).captions is None
    # Kept until the other half is there.
    (journal,) = (tmp_path / "divided").rglob("*.journal")
    assert len(journal.read_text().splitlines()) == 8
    divided = captions("divided", shard=(0, 2))
    assert divided.captions is not None
    for other in (resumed, divided.folder):
        assert files(other) == files(whole)


def files(folder):
    return {file.name: file.read_text() for file in folder.iterdir()}
