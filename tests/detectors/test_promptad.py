"""PromptAD on a tiny random CLIP: what is learned, by which images, and what a finished run is."""

import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad import cli
from jaxad.config import from_json, to_json
from jaxad.data import ClassNames, ImageList
from jaxad.detectors._learned_prompts import directions, embed, prompt_ids
from jaxad.detectors.promptad import PromptAD
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.inference import checkpoint
from jaxad.nn import module_state
from jaxad.testing import check_detector, make_parts
from jaxad.training.warm_start import begin_from
from jaxad.types import Batch, Features
from tests.detectors.clipfusion.made_checkpoints import write_clip

SETTINGS = {"clip_blocks": (1, 2), "output_size": 20, "chunk": 16, "prompts": (2, 1), "suffixes": 2}


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """Networks of a few channels are not worth optimizing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(write_clip(tmp_path_factory.mktemp("networks") / "clip"))


def made(clip, *categories, **changes):
    """A new detector that knows these categories."""
    config = jaxad.PromptADConfig(clip=clip, **SETTINGS | changes)
    model = PromptAD.create(config, key=jax.random.key(0))
    model.learn_names(ClassNames(categories))
    return model


def features(categories, seeds):
    """Features that depend on the seed of an image alone."""
    rows = [np.random.default_rng(seed) for seed in seeds]
    tokens, token = (np.stack([row.normal(size=shape) for row in rows]).astype(np.float32) for shape in ((9, 8), (8,)))
    extras = {"class": token, "category": np.array(categories, np.int32), "seed": np.array(seeds, np.uint32)}
    return Features(tokens, (3, 3), extras)


def gradients(model, *batches):
    """Terms of the loss, and gradients by path, of each batch; all batches have as many images."""
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)

    def loss(params, batch):
        return module_state.merge(graphdef, {**rest, **params}).loss(batch, jax.random.key(0))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    found = (run(trained, batch) for batch in batches)
    return [({name: float(term) for name, term in terms.items()}, own) for (_, terms), own in found]


@pytest.fixture(scope="module")
def both(clip):
    return made(clip, "disc", "capsule")


def test_categories_learn_as_if_alone_and_images_count_once(clip, both):
    of_disc, of_capsule = features([0, 0, 0, 0], [1, 2, 1, 2]), features([1, 1, 1, 1], [3, 4, 3, 4])
    uneven = features([0, 0, 0, 1], [1, 1, 2, 3])
    found = gradients(both, of_disc, of_capsule, uneven, features([0, 1, 1, 1], [1, 3, 4, 4]))
    (terms, disc), (_, capsule), (_, third), _ = found
    assert disc.keys() == {f"{p}_prompts/{part}" for p in ("image", "patch") for part in ("normal", "suffixes")}
    for path, gradient in disc.items():
        assert np.abs(gradient[0]).max() > 0
        assert np.abs(capsule[path][1]).max() > 0
        # What no image of a batch shows learns nothing.
        np.testing.assert_array_equal(gradient[1], 0)
        np.testing.assert_array_equal(capsule[path][0], 0)
        np.testing.assert_allclose(third[path][0], gradient[0], rtol=1e-3, atol=1e-6)
        assert np.abs(third[path][1]).max() > 0
    ((alone, own),) = gradients(made(clip, "disc"), of_disc)
    assert alone == pytest.approx(terms, rel=1e-4)
    for path, gradient in own.items():
        # Alone it has fewer states to fill up.
        np.testing.assert_allclose(gradient[0], disc[path][0], rtol=1e-3, atol=1e-6)


def test_learned_tokens_stand_before_the_name_and_manual_prompts_end_in_their_states(both):
    config, tower, tokenizer = both.config, both.backbone.text, both.backbone.tokenizer
    ids, used = prompt_ids(config, tower, tokenizer, both.categories)
    # disc has the 8 states of any object, capsule 5 of its own besides.
    assert (ids.shape[:2], used.sum(1).tolist()) == ((2, 15), [8, 13])
    words = ["disc.", "damaged disc.", "disc with flaw.", "capsule squeezed with compression."]
    for (category, row), text in zip(((0, 0), (0, 1), (0, 6), (1, 13)), words, strict=True):
        expected = [tokenizer.start, 0, 0, 0, 0, *tokenizer.ids(text), tokenizer.end]
        assert ids[category, row, : len(expected)].tolist() == expected
    assert ids[1, 14, 6 : 6 + len(tokenizer.ids("capsule."))].tolist() == tokenizer.ids("capsule.")
    assert ids.shape[2] == 6 + len(tokenizer.ids(words[-1]))


def test_learned_tokens_that_are_words_make_the_texts_of_these_words(both):
    tower, tokenizer = both.backbone.text, both.backbone.tokenizer
    before, suffix = tokenizer.ids("hole crack hole due"), tokenizer.ids("with")
    assert (len(before), len(suffix)) == (4, 1)
    prompts = both.patch_prompts
    kept = prompts.normal[...], prompts.suffixes[...]
    prompts.normal.set_value(jnp.broadcast_to(tower.embed(np.array(before)), kept[0].shape))
    prompts.suffixes.set_value(jnp.broadcast_to(tower.embed(np.array(suffix)), kept[1].shape))
    texts = jax.jit(lambda: embed(tower, [prompts], both.ids[...]))()[0]
    said = ("hole crack hole due {}.", "hole crack hole due {} with damage.", "hole crack hole due with {}.")
    rows = tokenizer([text.format(name) for name in both.categories for text in said])
    expected = np.asarray(jax.jit(lambda: tower(rows).embedding)()).reshape(2, 3, -1)
    found = np.stack([texts.normal[:, 0], texts.manual[:, 0, 7], texts.learned[:, 0, 1]], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    found = directions(texts, both.used[...])
    manual = np.asarray(texts.manual)[0, 0, :8]
    every = np.concatenate([manual, np.asarray(texts.learned)[0, 0]])
    mean = every.mean(0)
    np.testing.assert_allclose(found.abnormal[0], mean / np.linalg.norm(mean), atol=1e-5)
    units = every / np.linalg.norm(every, axis=-1, keepdims=True)
    apart = np.square(units[:8].mean(0) - units[8:].mean(0)).sum()
    np.testing.assert_allclose(found.apart[0], apart, rtol=1e-4)
    for variable, value in zip((prompts.normal, prompts.suffixes), kept, strict=True):
        variable.set_value(value)


def test_a_run_from_the_command_line(clip, tmp_path, capsys):
    data = make_parts(tmp_path / "data", ("disc", "tile"), train=3, test=1, size=24)
    model = ["--model.clip", clip, "--model.clip-blocks", "1", "2", "--model.output-size", "20"]
    train = ["--train.steps", "12", "--train.batch-size", "4", "--train.log-every", "1"]
    words = ["fit", "promptad", "--data", f"folder:{data}", "--workdir", str(tmp_path / "run"), "--shots", "2"]
    command: Any = cli.parse([*words, *model, *train])
    assert (command.protocol, command.train.optimizer, command.options.seed) == ("winclip", "sgd", 0)
    cli.run(command)
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    losses = [float(row.split(",")[rows[0].split(",").index("loss")]) for row in rows[1:]]
    assert losses == sorted(losses, reverse=True)
    restored = checkpoint.restore(tmp_path / "run")
    detector: Any = restored.detector
    assert (detector.categories, restored.meta["data"]["shots"]) == (("disc", "tile"), 2)
    # Two images of 3 x 3 patches of each category.
    assert [bank[...].shape for bank in detector.banks] == [(2, 18, 16)] * 2
    # The text tower is needed no more, nor are the networks in the checkpoint.
    assert detector.backbone.text is None
    assert not (restored.folder / "backbone").exists()
    with pytest.raises(ConfigError, match="finished"):
        detector.learn_names(ClassNames(("disc",)))
    # Prompts of two categories are those to begin with only where there are to be two.
    other = PromptAD.create(detector.config, key=jax.random.key(1))
    with pytest.raises(CheckpointError, match=r"image_prompts/normal: \(2, .* there, \(1, .* here"):
        begin_from(other, tmp_path / "run")
    other.learn_names(ClassNames(("disc", "tile")))
    begin_from(other, tmp_path / "run")
    other.learn_names(ClassNames(("disc", "tile")))
    np.testing.assert_array_equal(other.image_prompts.normal[...], detector.image_prompts.normal[...])
    dataset = jaxad.data.load(f"folder:{data}")
    check_detector(detector, dataset.test)
    where, answers = ["--checkpoint", str(tmp_path / "run"), "--out"], tmp_path / "answers"
    cli.run(cli.parse(["evaluate", "--data", f"folder:{data}", *where, str(tmp_path / "report")]))
    photo = next(data.glob("tile/test/*/*.png"))
    cli.run(cli.parse(["predict", str(photo), "--category", "tile", *where, str(answers)]))
    (line,) = map(json.loads, (answers / "predictions.jsonl").read_text().splitlines())
    assert (line["category"], line["threshold"] > 0, 0 < line["score"] < 1) == ("tile", True, True)


def test_what_is_unfinished_or_unknown_is_not_judged(both):
    batch = Batch({}, np.zeros(1, np.uint32), np.ones(1, bool))
    with pytest.raises(ConfigError, match="train it to the end"):
        both.judge(features([0], [1]), batch, None)
    with pytest.raises(DataError, match="name of every image's category"):
        both.learn_names(ImageList([np.zeros((9, 9, 3), np.uint8)]))


def test_prompts_that_are_too_long_are_named(clip):
    with pytest.raises(ConfigError, match=r"75 tokens:(?s:.*)\n  prompt 'x{70}\.': 71 tokens besides 5 learned"):
        made(clip, "disc", objects=("disc=" + 70 * "x",))


def test_states_of_categories():
    config = jaxad.PromptADConfig(class_states=("screw=rust, bent [object]",))
    assert config.abnormal("screw", "screw")[8:] == ["screw with rust", "bent screw"]
    assert config.abnormal("pill", "pill")[8:10] == ["pill with color stain", "pill with contamination"]
    assert jaxad.PromptADConfig(known_states=False).abnormal("pill", "pill")[-1] == "pill with damage"
    with pytest.raises(ConfigError, match=r"class_states = \['screw=.*there are pill"):
        config.check_categories(("pill",))


def test_presets_and_their_training():
    for name in jaxad.PromptADConfig.presets():
        config, training = jaxad.PromptADConfig.preset(name), jaxad.PromptADConfig.training(name)
        config.check()
        training.check()
        assert from_json(jaxad.PromptADConfig, to_json(config)) == config
        assert (training.steps, training.learning_rate, training.weight_decay) == (100, 2e-3, 5e-4)
        assert math.isclose(training.learning_rate * training.final_rate, 1e-5)
    wrong = {"prompts": (0, 1), "suffixes": 0, "margin": -1.0, "states": (" ",), "class_states": ("a",)}
    with pytest.raises(ConfigError) as error:
        jaxad.PromptADConfig(**wrong, clip_blocks=()).check()
    assert all(f"  {name}" in str(error.value) for name in (*wrong, "clip_blocks"))


@pytest.mark.parametrize("words", [["--shots", "0"], ["--classes", "a", "--categories", "b"]])
def test_commands_that_cannot_work(words, tmp_path):
    with pytest.raises(ConfigError, match=r"--shots 0: must be at least 1|the same"):
        cli.run(cli.parse(["fit", "promptad", "--workdir", str(tmp_path / "run"), "--data", "folder:x", *words]))
