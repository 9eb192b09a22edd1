"""CLIP's half of CLIPFusion alone: what each of its settings takes, and which banks they make."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.config import CLIPFusionConfig, from_json, to_json
from jaxad.data import ClassNames, ImageList
from jaxad.data.batches import batches
from jaxad.detectors.clipfusion.detector import MEMORIES, CLIPFusion
from jaxad.detectors.clipfusion.maps import resize
from jaxad.detectors.clipfusion.networks import load_networks
from jaxad.detectors.clipfusion.patchclip import PatchCLIP
from jaxad.errors import ConfigError, DataError
from jaxad.inference.prediction import answers
from jaxad.inference.predictor import Predictor
from jaxad.models.clip.dense import value_patches
from jaxad.models.clip.loading import load_clip
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from tests.detectors.clipfusion.made_checkpoints import DEPTH, PATCH, SIDE, fusion_config, write_clip


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """Networks of a few channels are not worth optimizing."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    write_clip(folder / "clip")
    return folder


@pytest.fixture(scope="module")
def references(parts):
    return parts.train.per_class(2, seed=0)


@pytest.fixture(scope="module")
def model(folder, references):
    """Two references of each of two categories."""
    return CLIPFusion.create(fusion_config(folder, "patchclip")).remember(references)


def variant(model, references, **changes):
    config = dataclasses.replace(model.config, **changes)
    return CLIPFusion.create(config, backbone=model.backbone).remember(references)


def judged(model, source):
    outputs = list(Predictor(model, "winclip", batch_size=4).stream(source))
    return np.concatenate([o.scores for o in outputs]), np.concatenate([o.maps for o in outputs])


@pytest.fixture(scope="module")
def images(parts):
    return parts.test.select([0, 5, 9, 13])


SETTINGS = {
    "published": {},
    "one block of two paths": {"vv_blocks": 1},
    "banks of the second path": {"clip_block_path": "vv"},
    "banks of PromptAD": {"clip_block_path": "attended"},
    "one path": {"clip_map": "original"},
    "values": {"clip_map": "value"},
}


@pytest.fixture(scope="module")
def found(folder):
    """Features by setting, and the tower's own outputs, from one program."""
    tower = load_clip(find_weights(folder / "clip")).vision
    graphdef, arrays = module_state.split(tower)
    images = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)

    @jax.jit
    def run(arrays, images):
        tower = module_state.merge(graphdef, arrays)
        halves = {name: half(folder, tower, **changes) for name, changes in SETTINGS.items()}
        pixels = tower.config.normalization(images)
        own = {
            "one path": tower(pixels, taps=(1,)),
            "two paths": tower(pixels, taps=(1,), vv_blocks=DEPTH, tapped_path="vv"),
            "last block": tower(pixels, vv_blocks=1),
            "values": value_patches(tower, pixels),
            "attended": tower.blocks[2].attended(tower(pixels, taps=(1,)).taps[1]),
        }
        return {name: each.features(tower, images) for name, each in halves.items()}, own

    return tower, *run(arrays, images)


@pytest.mark.parametrize(
    ("blocks", "depth", "numbers"),
    [((0.5, 0.75), 12, (5, 8)), ((6, 9), 12, (5, 8)), ((0.5, 0.75), 24, (11, 17)), ((0.5, 1.0, -1), 3, (1, 2, 2))],
)
def test_blocks_by_share_of_the_depth(found, folder, blocks, depth, numbers):
    tower = dataclasses.replace(found[0].config, depth=depth)
    config = fusion_config(folder, "patchclip", clip_blocks=blocks)
    config.check()
    assert PatchCLIP(config, tower).blocks == numbers
    assert from_json(CLIPFusionConfig, to_json(config)) == config


def half(folder, tower, **changes):
    return PatchCLIP(fusion_config(folder, "patchclip", **{"clip_blocks": (2,), **changes}), tower.config)


def test_settings_take_what_they_name(found):
    _, features, own = found
    patches = {
        "published": own["two paths"].patches,
        "one block of two paths": own["last block"].patches,
        "banks of the second path": own["two paths"].patches,
        "banks of PromptAD": own["two paths"].patches,
        "one path": own["one path"].patches,
        "values": own["values"],
    }
    for name, expected in patches.items():
        np.testing.assert_allclose(features[name]["patches"], expected, atol=1e-5, err_msg=name)
        path = "two paths" if name == "banks of the second path" else "one path"
        # From 1 in the settings, from 0 here; without the class token.
        taps = own["attended"] if name == "banks of PromptAD" else own[path].taps[1]
        np.testing.assert_allclose(features[name]["block 1"], taps[:, 1:], atol=1e-5, err_msg=name)
    differing = [own["two paths"].patches, own["last block"].patches, own["one path"].patches, own["values"]]
    differing += [tokens[:, 1:, :8] for tokens in (own["one path"].taps[1], own["two paths"].taps[1], own["attended"])]
    apart = [np.abs(a - b).max() for i, a in enumerate(differing) for b in differing[:i]]
    assert min(apart) > 1e-2


def test_temperature_goes_before_the_scale_of_the_checkpoint(folder, found):
    tower, features, _ = found
    texts = np.random.default_rng(1).normal(size=(2, 2, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    told, asked = half(folder, tower, temperature=0.1), half(folder, tower)
    patches, score = told.language(tower, features["published"], texts, jnp.float32(99))
    patches_of_ten, score_of_ten = asked.language(tower, features["published"], texts, jnp.float32(10))
    np.testing.assert_allclose(patches, patches_of_ten, rtol=1e-5)
    np.testing.assert_allclose(score, score_of_ten, rtol=1e-5)
    token = np.asarray(features["published"]["class"])
    logits = 10 * np.einsum("bd,bkd->bk", token / np.linalg.norm(token, axis=-1, keepdims=True), texts)
    np.testing.assert_allclose(score, np.exp(logits[:, 1]) / np.exp(logits).sum(1), rtol=1e-4)


def test_cosines_are_scaled_by_the_exponential_of_what_the_checkpoint_holds(folder):
    networks = load_networks(fusion_config(folder, "patchclip"))
    assert float(networks.logit_scale[...]) == pytest.approx(np.exp(3.0))


def test_distances_of_several_blocks_are_averaged(folder, found):
    tower = found[0]
    two = half(folder, tower, clip_blocks=(1, 2))
    generator = np.random.default_rng(2)
    tokens = {name: generator.normal(size=(2, 9, 4)).astype(np.float32) for name in two.banks}
    banks = [generator.normal(size=(2, 5, 4)).astype(np.float32) for _ in two.banks]
    banks = [bank / np.linalg.norm(bank, axis=-1, keepdims=True) for bank in banks]
    expected = np.zeros((2, 9))
    for seen, bank in zip(tokens.values(), banks, strict=True):
        cosines = np.einsum("bnc,bkc->bnk", seen / np.linalg.norm(seen, axis=-1, keepdims=True), bank[::-1])
        expected += 0.25 * (1 - cosines.max(-1))
    np.testing.assert_allclose(two.vision(tokens, banks, np.array([1, 0])), expected, atol=1e-5)


def test_class_token_says_the_same_everywhere(folder, found):
    tower, features, _ = found
    texts = np.eye(2, 8, dtype=np.float32)[None].repeat(2, 0)
    of_class = half(folder, tower, clip_map="class")
    patches, score = of_class.language(tower, features["published"], texts, jnp.float32(5))
    map = of_class.resized(patches)
    np.testing.assert_allclose(map, np.broadcast_to(np.asarray(score)[:, None, None], map.shape), rtol=1e-5)


@pytest.fixture(scope="module")
def prediction(model, images):
    return judged(model, images)


def test_one_bank_for_all_categories_holds_those_of_each(model, references, images, prediction):
    one = variant(model, references, per_category=False)
    for all, own in zip(one.clip_banks, model.clip_banks, strict=True):
        assert (all[...].shape, own[...].shape) == ((1, 36, 16), (2, 18, 16))
        rows = (sorted(np.asarray(bank[...]).reshape(36, 16).tolist()) for bank in (all, own))
        np.testing.assert_array_equal(*rows)
    scores, maps = judged(one, images)
    # References of the other category only ever bring the nearest one nearer.
    assert (maps <= prediction[1] + 1e-5).all()
    assert (scores <= prediction[0] + 1e-5).all()
    assert (prediction[1] - maps).max() > 1e-4


def test_references_are_no_anomalies_turned_or_not(model):
    generator = np.random.default_rng(4)
    pictures = [generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(6)]
    # As many as those of the other detectors here, so that they are one program.
    seen = ImageList(pictures[:4], "disc")
    remembering = variant(model, seen, rotations=True, modalities=("vision",))
    assert [bank[...].shape for bank in remembering.clip_banks] == [(1, 4 * 36, 16)] * 2
    turned = [np.rot90(picture, turns) for turns, picture in enumerate(pictures[:4])]
    scores, maps = judged(remembering, ImageList([*turned, *pictures[4:]], "disc"))
    assert np.abs(maps[:4]).max() < 1e-5
    assert scores[4:].min() > 1e-3


def test_bfloat16_is_near_float32(model, images, prediction):
    low = CLIPFusion.create(dataclasses.replace(model.config, precision="bfloat16"))
    low.categories = model.categories
    for name in MEMORIES:
        setattr(low, name, getattr(model, name))
    scores, maps = judged(low, images)
    assert maps.dtype == np.float32
    assert 1e-5 < np.abs(maps - prediction[1]).max() / np.sqrt(np.mean(np.square(prediction[1]))) < 0.02
    np.testing.assert_allclose(scores, prediction[0], rtol=0.02)


def test_harmonic_fusion_is_of_maps_and_the_score_has_its_own():
    config = CLIPFusionConfig.preset("winclip")
    assert (config.fusion, config.score_fusion) == ("harmonic", "sum")
    # Saved before there was such a field.
    saved = to_json(config)
    del saved["score_fusion"]
    assert from_json(CLIPFusionConfig, saved) == config


@pytest.mark.parametrize(("score_fusion", "score"), [("sum", 0.2 + 0.8), ("harmonic", 2 / (1 / 0.2 + 1 / 0.8))])
def test_scores_are_fused_as_they_are_told(model, monkeypatch, score_fusion, score):
    config = dataclasses.replace(model.config, fusion="harmonic", score_fusion=score_fusion)
    detector = CLIPFusion(config, model.backbone)
    terms = {"clip": {"language": np.full((1, 2, 2), 0.2), "vision": np.full((1, 2, 2), 0.8)}}
    scores = {"clip": {"language": np.array([0.2]), "vision": np.array([0.8])}}
    monkeypatch.setattr(CLIPFusion, "terms", lambda *_: (terms, scores))
    monkeypatch.setattr(CLIPFusion, "context", lambda *_: {})
    judgement = detector.judge(None, None, None)
    np.testing.assert_allclose(judgement.scores, [score], rtol=1e-6)
    np.testing.assert_allclose(judgement.maps, np.full((1, 2, 2), 0.32), rtol=1e-6)


def windows_of(side):
    """Patches of every window on the 3 x 3 grid."""
    for row in range(3 - side + 1):
        for column in range(3 - side + 1):
            yield [3 * (row + i) + column + j for i in range(side) for j in range(side)]


@pytest.mark.parametrize("shots", [0, 2])
def test_winclip_as_caoyunkang_has_it_is_what_its_loops_give(folder, references, images, shots):
    """Window by window, side by side, as published, but for the first window of the second side (see decisions)."""
    model = CLIPFusion.create(fusion_config(folder, "caoyunkang-winclip"))
    model.remember(references if shots else ClassNames(("disc", "tile")))
    loaded = next(batches(images, model.inputs.views, 4))
    category = np.array([model.categories.index(record.category) for record in loaded.records], np.int32)
    batch = loaded.batch.replace(category=category)
    graphdef, arrays = module_state.split(model)

    @jax.jit
    def run(arrays, batch):
        model = module_state.merge(graphdef, arrays)
        features = model.encode(batch)
        return features.extras, model.judge(features, batch, None)

    extras, judgement = run(arrays, batch)
    assert sorted(name for name in extras if name != "class") == ["patches", "window 2", "window 3"]
    for row, own in enumerate(category):
        texts = np.asarray(model.clip_texts[...], np.float64)[own]
        told, seen = [], []
        for place, side in enumerate((2, 3)):
            inverse, distance, count = np.zeros(9), np.zeros(9), np.zeros(9)
            for number, patches in enumerate(windows_of(side)):
                window = np.asarray(extras[f"window {side}"], np.float64)[row, number]
                window /= np.linalg.norm(window)
                logits = np.exp(100 * texts @ window)
                inverse[patches] += logits.sum() / logits[0]
                count[patches] += 1
                if shots:
                    bank = np.asarray(model.clip_banks[place][...], np.float64)[own]
                    distance[patches] += 0.5 * (1 - (bank @ window).max())
            told.append(inverse / count)
            seen.append(distance / count)
        language = 1 - 1 / np.mean(told, axis=0)
        # Published is half of it, which ranks alike.
        fused = 2 / (1 / language + 1 / np.mean(seen, axis=0)) if shots else language
        expected = np.asarray(resize(fused.reshape(1, 3, 3).astype(np.float32), (20, 20)))[0]
        rms = np.sqrt(np.mean(np.square(expected)))
        assert np.abs(judgement.maps[row] - expected).max() < 1e-4 * rms
        assert float(judgement.scores[row]) == pytest.approx(expected.max(), rel=1e-4)


def test_patches_are_fused_of_clip_alone():
    with pytest.raises(ConfigError, match='fusion = "harmonic-patches": needs models'):
        CLIPFusionConfig(fusion="harmonic-patches").check()


def test_images_smaller_than_a_patch_are_named(model, references):
    assert model.inputs.least_side == PATCH
    sizes = {"thin": (PATCH - 1, 40), "small": (3, 2), "enough": (PATCH, PATCH)}
    pictures = [np.zeros((*size, 3), np.uint8) for size in sizes.values()]
    with pytest.raises(DataError, match=r"clipfusion needs .* at least 4 pixels") as error:
        judged(model, ImageList(pictures, "disc"))
    assert [(p.file, p.detail) for p in error.value.problems] == [
        ("image-0", "40 x 3 pixels, fewer than 4 on a side"),
        ("image-1", "2 x 3 pixels, fewer than 4 on a side"),
    ]
    with pytest.raises(DataError, match="image-1: small image: 2 x 3 pixels"):
        variant(model, ImageList(pictures, "disc"))
    problems = []
    stream = answers(Predictor(model), ImageList(pictures, "disc"), on_bad=problems.extend)
    assert [answer.file for answer in stream] == ["image-2"]
    assert [(p.file, p.kind) for p in problems] == [("image-0", "small image"), ("image-1", "small image")]


def test_other_categories_are_judged_by_their_names_alone(model, references, images):
    def zero(*names):
        return CLIPFusion.create(model.config, backbone=model.backbone).remember(ClassNames(names))

    renamed, expected = zero("disc", "tile"), zero("object")
    renamed.rename(["object"])
    assert renamed.categories == ("object",)
    # Where there is only one, nobody has to name it.
    unnamed = ImageList([images[0].image, images[3].image])
    for mine, theirs in zip(judged(renamed, unnamed), judged(expected, unnamed), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(ConfigError, match="references of disc, tile"):
        model.rename(["object"])
    with pytest.raises(ConfigError, match="needs one or more"):
        renamed.rename([])
    for_all = variant(model, references, per_category=False)
    for_all.rename(["bolt", "object"])
    assert for_all.few_shot
    with pytest.raises(DataError, match="knows bolt, object"):
        judged(for_all, unnamed)
