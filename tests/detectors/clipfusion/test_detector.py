"""CLIPFusion on tiny random networks: what its numbers must not depend on, its checkpoints, its errors."""

import dataclasses
import json
import shutil
from typing import get_args

import jax
import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad import cli
from jaxad.config import CLIPFusionConfig, CLIPFusionPreset
from jaxad.data import ClassNames, ImageList
from jaxad.detectors.clipfusion.detector import MEMORIES, CLIPFusion
from jaxad.detectors.clipfusion.networks import embed_texts, load_networks
from jaxad.errors import CheckpointError, ConfigError, DataError, WeightsError
from jaxad.inference import checkpoint
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.nn import precision as precision_of_networks
from jaxad.nn.variables import Memory
from jaxad.testing import make_parts
from tests.detectors.clipfusion.made_checkpoints import BASELINES, fusion_config, write_clip, write_diffusion

FAST = {"language_timesteps": (201,), "diffusion_taps": ((201, 1),), "states": ("crack", "hole")}
"""One call of the UNet."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    write_clip(folder / "clip")
    write_diffusion(folder / "diffusion", channels=4)
    return folder


@pytest.fixture(scope="module")
def networks(folder):
    return CLIPFusion.create(fusion_config(folder, **FAST)).backbone


@pytest.fixture(scope="module")
def references(parts):
    return parts.train.per_class(2, seed=0)


@pytest.fixture(scope="module")
def few(folder, networks, references):
    return CLIPFusion.create(fusion_config(folder, **FAST), backbone=networks).remember(references)


def judged(model, source, indices=None):
    outputs = list(Predictor(model, "winclip", batch_size=2).stream(source, indices=indices))
    return np.concatenate([o.scores for o in outputs]), np.concatenate([o.maps for o in outputs])


def test_order_of_references_and_of_images_changes_nothing(folder, networks, few, references, parts):
    indices = [9, 0, 13]
    scores, maps = judged(few, parts.test, indices)
    turned = references.select(range(len(references))[::-1])
    other = CLIPFusion.create(fusion_config(folder, **FAST), backbone=networks).remember(turned)
    assert other.categories == few.categories[::-1]
    again, maps_again = judged(other, parts.test, indices[::-1])
    np.testing.assert_allclose(again[::-1], scores, rtol=1e-4)
    np.testing.assert_allclose(maps_again[::-1], maps, rtol=1e-3, atol=1e-5)


def test_banks_hold_every_patch_of_the_references(few):
    # 2 images of 3 x 3 patches; of 8 x 8 latents at the last up-block.
    assert [bank[...].shape for bank in few.clip_banks] == [(2, 18, 16)] * 2
    assert [bank[...].shape for bank in few.diffusion_banks] == [(2, 128, 8)]
    assert all(np.isfinite(bank[...]).all() for bank in (*few.clip_banks, *few.diffusion_banks))


def test_the_four_maps_add_up_to_the_one(few, parts):
    indices = [9, 0]
    (output,) = Predictor(few, "winclip", batch_size=2).stream(parts.test, indices=indices, explain=("terms", "input"))
    raw = Predictor(few, "winclip", batch_size=2)
    (loaded,) = raw.batches(parts.test, indices, 0)
    maps, _ = raw.raw(loaded.batch)
    weights = {"clip": few.config.map_weight, "diffusion": 1 - few.config.map_weight}
    for map, explanation in zip(np.asarray(maps), output.explanations, strict=True):
        names = {f"{model} {modality}" for model in weights for modality in ("language", "vision")}
        assert explanation.terms.keys() == names
        together = sum(weights[name.split()[0]] * term for name, term in explanation.terms.items())
        np.testing.assert_allclose(together, map, rtol=1e-4, atol=1e-5)
        assert {name: picture.shape for name, picture in explanation.pictures.items()} == {
            f"input {name}": (view.height, view.width, 3) for name, view in few.inputs.views.items()
        }


def test_zero_shot_needs_names_alone(folder, networks):
    config = fusion_config(folder, **FAST)
    model = CLIPFusion.create(config, backbone=networks).remember(ClassNames(("disc", "tile")))
    assert not model.few_shot
    assert (model.categories, model.clip_texts[...].shape) == (("disc", "tile"), (2, 2, 8))
    assert model.queries[...].shape == (2, 2, 77, 12)
    for banks in (model.clip_banks, model.diffusion_banks):
        banks[0] = Memory(np.ones((1, 3, 4), np.float32))
    assert model.few_shot
    assert not model.remember(ClassNames(("disc",))).few_shot


def test_passes_go_no_deeper_than_needed(folder, networks):
    changes = {"language_timesteps": (201, 801), "diffusion_taps": ((201, 1), (401, 0)), "memory_gb": 1e-9}
    half = CLIPFusion.create(fusion_config(folder, **changes), backbone=networks).mapdiff
    both, later = half.calls(language=True, vision=True)
    assert (both.timesteps, both.stages) == ((201, 801), ((201, "up_blocks.1"),))
    assert (later.timesteps, later.sites, later.stages) == ((401,), (), ((401, "up_blocks.0"),))
    assert [call.stages for call in half.calls(language=True, vision=False)] == [()]
    assert all("mid" not in site for site in both.sites)
    assert half.at_once == 1


@pytest.mark.parametrize(("place", "patches"), [("block", 64), ("layers", 16)])
def test_taps_behind_and_before_the_upsampler(folder, networks, place, patches):
    changes = {"diffusion_taps": ((201, 0), (201, 1)), "tap_place": place, "attention_parts": ("down", "mid", "up")}
    half = CLIPFusion.create(fusion_config(folder, **FAST | changes), backbone=networks).mapdiff
    assert "mid_block.attentions.0" in half.sites
    latents, text, which = np.zeros((1, 8, 8, 4), np.float32), np.zeros((1, 77, 12), np.float32), np.zeros(1, int)
    found = jax.eval_shape(lambda: half.references(networks.unet, {"latents": latents}, text))
    # Two levels: only the first up-block has an upsampler.
    assert [tokens.shape for tokens in found] == [(1, patches, 16), (1, 64, 8)]
    texts = {"queries": text[:, None], "weights": np.ones((1, 1), np.float32)}
    texts |= {"places": np.ones((1, 1, 1), int), "used": np.ones((1, 1, 1), bool)}
    banks = [np.ones((1, *tokens.shape[1:]), np.float32) for tokens in found]
    terms, _ = jax.eval_shape(lambda: half.terms(networks.unet, {"latents": latents}, texts, banks, which, True))
    assert terms["vision"].shape == terms["language"].shape == (1, 20, 20)


def test_checkpoint_holds_banks_and_texts_but_no_networks(folder, few, parts, tmp_path):
    model = CLIPFusion.create(few.config, backbone=few.backbone)
    run = jaxad.fit(model, parts.train.per_class(2, seed=0), workdir=tmp_path / "run", protocol="winclip")
    step = checkpoint.find_step(tmp_path / "run")
    assert not (step / "backbone").exists()
    restored = checkpoint.restore(tmp_path / "run").detector
    for mine, theirs in zip(judged(run.model, parts.test, [0]), judged(restored, parts.test, [0]), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    write_clip(tmp_path / "clip")
    moved = checkpoint.restore(tmp_path / "run", backbone=f"clip={tmp_path / 'clip'}").detector
    assert moved.config.clip == str(tmp_path / "clip")
    assert moved.config.diffusion == few.config.diffusion
    write_diffusion(tmp_path / "other", channels=9)
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.restore(tmp_path / "run", backbone=f"diffusion={tmp_path / 'other'}")
    with pytest.raises(CheckpointError, match="`backbone`"):
        checkpoint.restore(tmp_path / "run", backbone=f"clip={tmp_path / 'missing'}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_image_size": 2}, "multiple of the 4 px patch"),
        ({"image_size": 9}, "image_size = 9"),
        ({"clip_blocks": (4,)}, "blocks 1 to 3"),
        ({"clip_blocks": (1.5,)}, "shares of the depth"),
        ({"clip_blocks": (2, -1), "clip_block_path": "attended"}, "the last block has none behind it"),
        ({"attention_norm": "none", "attention_norm_of": "sites"}, "attention_norm_of = 'sites': needs"),
        ({"diffusion_taps": ((201, 3),)}, "up-blocks 0 to 1"),
        ({"attention_sides": (5,)}, "no such cross-attention"),
        ({"map_prompt": "a photo"}, r"map_prompt.*\[state\]"),
        ({"clip_prompt": "a photo"}, r"clip_prompt.*\[state\]"),
        ({"class_states": ("cable",)}, "CATEGORY=WORDS"),
        ({"models": ("clip",)}, "given are those of clip, diffusion"),
    ],
)
def test_settings_that_do_not_fit_are_named(folder, networks, changes, message):
    with pytest.raises(ConfigError, match=message):
        CLIPFusion.create(fusion_config(folder, **FAST | changes), backbone=networks)


def test_what_cannot_be_remembered_or_judged_is_named(folder, few, references, parts):
    with pytest.raises(DataError, match="category"):
        CLIPFusion.create(few.config, backbone=few.backbone).remember(ImageList([np.zeros((8, 8, 3), np.uint8)]))
    blind = CLIPFusion.create(fusion_config(folder, **FAST, modalities=("vision",)), backbone=few.backbone)
    with pytest.raises(ConfigError, match="needs them"):
        blind.remember(ClassNames(("disc",)))
    words = {"objects": ("disc=coin", "disk=coin"), "class_states": ("tiles=crack",)}
    typing_error = CLIPFusion.create(fusion_config(folder, **FAST, **words), backbone=few.backbone)
    with pytest.raises(ConfigError, match=r"\['disk=coin'\]: no such category; there are disc, tile[\s\S]*tiles=crack"):
        typing_error.remember(references)
    with pytest.raises(ConfigError, match="shots = 0"):
        CLIPFusion.create(fusion_config(folder, "clip-ac")).remember(references)
    with pytest.raises(ConfigError, match="remember"):
        jaxad.predict(CLIPFusion.create(few.config, backbone=few.backbone), parts.test.records[0].file)
    with pytest.raises(DataError, match="knows disc, tile"):
        jaxad.predict(few, parts.test.records[0].file, category="bolt")
    with pytest.raises(DataError, match="disc has 7"):
        parts.train.per_class(8)
    with pytest.raises(ConfigError, match="clip=SOURCE"):
        CLIPFusion.load_pretrained(few.config, {}, "somewhere")


@pytest.mark.slow
def test_bfloat16_is_near_float32(folder, few, parts):
    """Both models, all terms, with autoencoder and UNet in bfloat16."""
    low = CLIPFusion.create(dataclasses.replace(few.config, precision="bfloat16"))
    low.categories = few.categories
    for name in MEMORIES:
        setattr(low, name, getattr(few, name))
    (scores, maps), (exact_scores, exact) = (judged(model, parts.test, [9, 0]) for model in (low, few))
    assert np.isfinite(maps).all()
    assert 1e-4 < np.abs(maps - exact).max() / np.sqrt(np.mean(np.square(exact))) < 0.1
    np.testing.assert_allclose(scores, exact_scores, rtol=0.03)


@pytest.mark.parametrize("preset", BASELINES)
def test_baselines_judge(folder, references, parts, preset):
    model = CLIPFusion.create(fusion_config(folder, preset))
    assert model.mapdiff is None
    model.remember(references if preset.endswith("winclip") else ClassNames(("disc", "tile")))
    scores, maps = judged(model, parts.test, [0, 9])
    assert np.isfinite(maps).all()
    assert ((scores > 0) & (scores < 1)).all()
    # CLIP-AC has one number for an image.
    assert (np.ptp(maps, axis=(1, 2)) < 1e-6).all() == (preset == "clip-ac")


def test_tokenizers_may_lie_elsewhere(folder, tmp_path):
    clip = shutil.copytree(folder / "clip", tmp_path / "clip", ignore=shutil.ignore_patterns("vocab*", "merges*"))
    pipeline = shutil.copytree(folder / "diffusion", tmp_path / "sd", ignore=shutil.ignore_patterns("tokenizer"))
    config = fusion_config(folder, **FAST, objects=("disc=crack hole",))
    moved = dataclasses.replace(config, clip=str(clip), diffusion=str(pipeline))
    own = ("--model.clip-tokenizer", str(folder / "clip"), "--model.diffusion-tokenizer", str(folder / "diffusion"))
    told = cli.parse(["fit", "clipfusion", "--workdir", "run", "--classes", "disc", *own]).model
    places = {name: getattr(told, name) for name in ("clip_tokenizer", "diffusion_tokenizer")}
    jax.tree.map(
        np.testing.assert_array_equal,
        tuple(embed_texts(dataclasses.replace(moved, **places), ("disc",))),
        tuple(embed_texts(config, ("disc",))),
    )
    for missing in places:
        with pytest.raises(WeightsError, match=r"vocab\.json"):
            embed_texts(dataclasses.replace(moved, **places | {missing: None}), ("disc",))


def test_every_category_needs_training_images(folder, tmp_path):
    data = make_parts(tmp_path / "data", ("bolt", "disc"), train=2, test=1, size=12)
    shutil.rmtree(data / "bolt" / "train")
    words = ["fit", "clipfusion", "--preset", "patchclip", "--model.clip", str(folder / "clip")]
    words += ["--shots", "1", "--holdout", "0", "--workdir", str(tmp_path / "run"), "--data", f"folder:{data}"]
    ways = r"none of bolt: add .*train/good.*\(--categories disc\).*--shots 0"
    with pytest.raises(DataError, match=ways):
        cli.run(cli.parse(words))
    with pytest.raises(DataError, match=r"none of bolt: add .*train/good\), or look at none \(--shots 0\)"):
        cli.run(cli.parse([*words, "--categories", "bolt"]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "winclip", "--classes", "a", "--image-size", "448"], r"WinCLIP.*--model\.clip-image-size 448"),
        (["--shots", "-1", "--data", "folder:x"], "--shots -1"),
        (["--shots", "2", "--classes", "a"], r"--shots 2: .*--data"),
        ([], "--classes"),
        (["--classes", "a", "--categories", "b", "--data", "folder:x"], "the same"),
        (["--classes", "a", "--holdout", "0", "--reference-lists", "l"], "lists l: not used with --shots 0"),
    ],
)
def test_commands_that_cannot_work(words, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        cli.run(cli.parse(["fit", "clipfusion", "--workdir", str(tmp_path / "run"), *words]))


@pytest.mark.parametrize(("precision", "autoencoder"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_autoencoder_computes_in_float32_unless_told(folder, monkeypatch, precision, autoencoder):
    monkeypatch.setattr(precision_of_networks, "target_platform", lambda: "gpu")
    places = ({"diffusion": str(folder / "diffusion")}, {"diffusion": "random:8"})
    for place in places:
        config = CLIPFusionConfig.preset("mapdiff", precision=precision, **place)
        loaded = load_networks(config)
        assert (loaded.vae.dtype, loaded.unet.dtype) == (autoencoder, "bfloat16")
        if place == places[0]:
            types = [
                {array.dtype.name for array in module_state.split(part)[1].values()}
                for part in (loaded.vae, loaded.unet)
            ]
            assert types == [{autoencoder}, {"bfloat16"}]


def test_untrained_networks_fit_the_published_settings():
    config = CLIPFusionConfig(clip="random:8", diffusion="random:8")
    model, other = (CLIPFusion.create(config) for _ in range(2))
    assert (model.backbone.id, model.backbone.bytes) == ("clip=random:8,diffusion=random:8", 0)
    assert model.backbone.sha256 == other.backbone.sha256
    assert (model.patchclip.grid, model.mapdiff.grid) == ((15, 15), (64, 64))
    for first, second in zip(*(module_state.split(m.backbone)[1].values() for m in (model, other)), strict=True):
        np.testing.assert_array_equal(first, second)
    with pytest.raises(ConfigError, match=r"random:12.*random:WIDTH"):
        CLIPFusion.create(CLIPFusionConfig.preset("patchclip", clip="random:12"))


def test_checkpoints_of_another_kind_are_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match="unet"):
        CLIPFusion.create(fusion_config(folder, "patchclip", clip=str(folder / "diffusion" / "unet")))
    with pytest.raises(WeightsError, match="unet: no such folder"):
        CLIPFusion.create(fusion_config(folder, "mapdiff", diffusion=str(folder / "clip")))
    write_diffusion(tmp_path, channels=5)
    with pytest.raises(ConfigError, match="5 input channels"):
        CLIPFusion.create(fusion_config(folder, "mapdiff", diffusion=str(tmp_path)))


def test_presets_have_rows_of_their_own():
    labels = [CLIPFusionConfig.preset(name).label for name in get_args(CLIPFusionPreset)]
    assert len(set(labels)) == len(labels)


def test_command_line(folder, tmp_path):
    names = ["--model.clip", str(folder / "clip"), "--shots", "0", "--classes", "disc", "tile"]
    words = [
        "fit",
        "clipfusion",
        "--preset",
        "patchclip",
        "--model.clip-blocks",
        "2",
        "--workdir",
        str(tmp_path / "run"),
    ]
    command = cli.parse([*words, *names])
    assert command.model == CLIPFusionConfig.preset("patchclip", clip=str(folder / "clip"), clip_blocks=(2,))
    cli.run(command)
    restored = checkpoint.restore(tmp_path / "run")
    assert restored.detector.categories == ("disc", "tile")
    assert (restored.meta["data"]["shots"], restored.meta["protocol"]) == (0, "winclip")
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "photo.png")
    words = ["predict", str(tmp_path / "photo.png"), "--checkpoint", str(tmp_path / "run"), "--out"]
    with pytest.raises(ConfigError, match="knows disc, tile"):
        cli.run(cli.parse([*words, str(tmp_path / "none")]))
    cli.run(cli.parse([*words, str(tmp_path / "answers"), "--classes", "object"]))
    (line,) = (tmp_path / "answers" / "predictions.jsonl").read_text().splitlines()
    assert (json.loads(line)["category"], json.loads(line)["threshold"]) == ("object", None)


def test_four_photos_are_enough_for_four_shots(folder, tmp_path, capsys):
    data = make_parts(tmp_path / "data", ("disc",), train=4, test=0, size=12)
    words = ["fit", "clipfusion", "--preset", "patchclip", "--model.clip", str(folder / "clip")]
    words += ["--model.clip-blocks", "2", "--data", f"folder:{data}", "--workdir", str(tmp_path / "run")]
    cli.run(cli.parse([*words, "--shots", "4"]))
    said = capsys.readouterr()
    assert (said.out + said.err).count("hold-out: every normal image is remembered") == 1
    assert "--category" not in said.out + said.err
    restored = checkpoint.restore(tmp_path / "run")
    assert restored.threshold is None
    assert sorted(restored.meta["data"]["references"]["disc"]) == [
        f"disc/train/good/{file.name}" for file in sorted((data / "disc/train/good").iterdir())
    ]
