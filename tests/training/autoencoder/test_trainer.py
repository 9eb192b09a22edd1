"""Autoencoder finetuning from end to end on a toy: resuming, what is saved, when the adversary counts."""

import csv
import dataclasses
import json
import re
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

import jaxad
from jaxad.config import FirstStageConfig, FirstStageTrainConfig
from jaxad.errors import CheckpointError, ConfigError, WeightsError
from jaxad.models.convnets.lpips import LINEARS, abstract_lpips
from jaxad.models.convnets.patch_discriminator import key_map, new_discriminator
from jaxad.models.convnets.vgg import key_maps
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder, load_autoencoder, save_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state
from jaxad.training.autoencoder.loss import DISCRIMINATOR, LPIPS, adaptive_weight, hinge_loss
from jaxad.training.autoencoder.step import normalized
from jaxad.training.autoencoder.trainer import evenly_chosen, fit_autoencoder, load_networks, measured_scale
from tests.models.stable_diffusion.made_checkpoints import randomized

SHAPE = AutoencoderConfig(block_out_channels=(4,), layers_per_block=1, norm_num_groups=2)

CONFIG = {"image_size": 16, "perceptual_weight": 0.0, "discriminator_start": 2, "discriminator_width": 2}
CONFIG |= {"discriminator_layers": 1}
TRAIN = {"steps": 4, "batch_size": 2, "accumulate": 2, "learning_rate": 1e-2, "checkpoint_every": 2, "log_every": 1}


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A toy autoencoder as diffusers would save it."""
    folder = tmp_path_factory.mktemp("start")
    save_autoencoder(randomized(abstract_autoencoder(SHAPE)), folder)
    return str(folder)


def fit(parts, start, workdir, **changes):
    train = FirstStageTrainConfig(**{**TRAIN, **changes})
    return fit_autoencoder(parts.train, FirstStageConfig(source=start, **CONFIG), train, workdir=workdir)


@pytest.fixture(scope="module")
def undisturbed(parts, start, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    return fit(parts, start, workdir), workdir


def arrays_of(autoencoder):
    return {path: np.asarray(array) for path, array in module_state.split(autoencoder)[1].items()}


def rows(workdir):
    with (workdir / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.mark.slow
def test_more_steps_and_a_hold_out_that_is_watched_change_no_bit(undisturbed, parts, start, tmp_path):
    again = {"workdir": tmp_path / "run", "holdout": parts.holdout}
    for steps in (3, 4):
        train = FirstStageTrainConfig(**{**TRAIN, "steps": steps, "eval_every": 2})
        run = fit_autoencoder(parts.train, FirstStageConfig(source=start, **CONFIG), train, **again)
    expected, found = arrays_of(undisturbed[0].autoencoder), arrays_of(run.autoencoder)
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    with (tmp_path / "run/evaluations-holdout.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in table] == [0, 2, 3, 4]
    errors = [float(row["absolute_error"]) for row in table]
    assert 0 < errors[-1] < errors[0] < 255
    assert {row["images"] for row in table} == {"8"}


def test_steps_that_make_it_another_training_are_refused(undisturbed, parts, start, tmp_path):
    """A run too short for a discriminator has none, and none to go on with."""
    run = shutil.copytree(undisturbed[1], tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"train\.steps: 4 are done there, 3 now"):
        fit(parts, start, run, steps=3)
    shutil.rmtree(run / "checkpoints")
    record = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(record | {"adversary": False}))
    with pytest.raises(CheckpointError, match=r"adversary: False there, True now .*discriminator"):
        fit(parts, start, run)


def test_what_cannot_be_watched_or_traced_is_refused_before_any_work(parts, start, tmp_path):
    with pytest.raises(ConfigError, match="eval_every = 2: there are no images"):
        fit(parts, start, tmp_path / "run", eval_every=2)
    train, config = FirstStageTrainConfig(**TRAIN), FirstStageConfig(source=start, **CONFIG)
    with pytest.raises(ConfigError, match="profile = 2:5: must be steps of the 4"):
        fit_autoencoder(parts.train, config, train, workdir=tmp_path / "run", profile=(2, 5))
    assert not (tmp_path / "run").exists()


def test_saved_folder_is_what_was_trained(undisturbed, start):
    run, workdir = undisturbed
    assert run.folder == workdir / "autoencoder"
    assert json.loads((run.folder / "config.json").read_text())["_class_name"] == "AutoencoderKL"
    saved, trained, first = map(arrays_of, (load_autoencoder(run.folder), run.autoencoder, load_autoencoder(start)))
    assert all(np.array_equal(saved[path], trained[path]) for path in trained)
    assert all(not np.array_equal(first[path], trained[path]) for path in trained)
    assert (workdir / "reconstructions.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in workdir.iterdir()) == [
        "autoencoder",
        "checkpoints",
        "config.json",
        "metrics.csv",
        "reconstructions.png",
    ]


def test_adversary_counts_after_its_start(undisturbed):
    """Its terms are logged from the first step on, but move nothing for `discriminator_start` steps."""
    _, workdir = undisturbed
    logged = rows(workdir)
    assert [int(row["step"]) for row in logged] == [1, 2, 3, 4]
    values = 3 * CONFIG["image_size"] ** 2
    for number, row in enumerate(logged):
        plain = values * float(row["absolute_error"]) + 1e-6 * float(row["kl"])
        adversarial = float(row["loss"]) - plain
        assert float(row["adaptive_weight"]) > 0
        assert (abs(adversarial) > 1e-4 * plain) == (number >= 2)


def test_killed_and_resumed_is_bit_equal(undisturbed, parts, start, tmp_path):
    # What a run leaves that is killed between its checkpoint of step 2 and its end.
    shutil.copytree(undisturbed[1], tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "run" / "autoencoder")
    (tmp_path / "run" / "autoencoder.new").mkdir()
    run = fit(parts, start, tmp_path / "run")
    expected = arrays_of(undisturbed[0].autoencoder)
    found = arrays_of(run.autoencoder)
    assert all(np.array_equal(found[path], expected[path]) for path in expected)
    saved = arrays_of(load_autoencoder(tmp_path / "run" / "autoencoder"))
    assert all(np.array_equal(saved[path], expected[path]) for path in expected)
    assert not (tmp_path / "run" / "autoencoder.new").exists()
    for ours, theirs in zip(rows(tmp_path / "run"), rows(undisturbed[1]), strict=True):
        assert ours["loss"] == theirs["loss"]
    assert run.errors == undisturbed[0].errors

    again = fit(parts, start, tmp_path / "run")
    assert all(np.array_equal(array, expected[path]) for path, array in arrays_of(again.autoencoder).items())


def test_a_run_is_no_detector_and_says_what_it_is(undisturbed):
    run, workdir = undisturbed
    for place in (workdir, workdir / "checkpoints" / "4"):
        with pytest.raises(CheckpointError, match=re.escape(f"{run.folder}; give that to")):
            jaxad.restore(place)


def test_published_schedule():
    """The published settings of the authors' configuration."""
    train = FirstStageTrainConfig()
    assert (train.rate, train.betas, train.images) == (4.5e-5, (0.5, 0.9), 8)
    assert FirstStageTrainConfig(batch_size=4).rate == 1.8e-4
    assert train.steps_for(3629) == 45_363
    config = FirstStageConfig()
    assert (config.kl_weight, config.discriminator_weight, config.discriminator_start) == (1e-6, 0.5, 50_001)


def test_adaptive_weight_is_bounded():
    large, nothing = np.full((3, 3), 1e9, np.float32), np.zeros((3, 3), np.float32)
    assert float(adaptive_weight(large, nothing, 0.5)) == 0.5 * 1e4
    np.testing.assert_allclose(adaptive_weight(large, large, 0.5), 0.5, rtol=1e-5)
    assert float(adaptive_weight(nothing, nothing, 0.5)) == 0


def test_hinge_loss():
    real, fake = np.array([2.0, 0.0], np.float32), np.array([-2.0, 1.0], np.float32)
    assert float(hinge_loss(real, fake)) == 0.5 * (0.5 + 1.0)


def test_lpips_and_discriminator_of_an_ldm_checkpoint(tmp_path):
    """kl-f8's .ckpt brings all that its training used; a diffusers folder brings the autoencoder alone."""
    shape = AutoencoderConfig(block_out_channels=(32, 64, 64), layers_per_block=1)
    autoencoder, lpips = randomized(abstract_autoencoder(shape)), randomized(abstract_lpips((2, 3, 4, 5, 6)))
    tensors = to_torch(autoencoder, autoencoder_key_maps(shape)["ldm"])
    perceptual = to_torch(lpips.vgg, key_maps()["lpips"]) | to_torch(lpips.linears, LINEARS)
    perceptual["scaling_layer.shift"] = np.zeros((1, 3, 1, 1), np.float32)
    judge = to_torch(new_discriminator(1, width=2), key_map(3))
    judge |= {f"main.3.{name}": np.ones(4, np.float32) for name in ("running_mean", "running_var")}
    tensors |= {f"loss.perceptual_loss.{name}": tensor for name, tensor in perceptual.items()}
    tensors |= {f"loss.discriminator.{name}": tensor for name, tensor in judge.items()}
    tensors["loss.logvar"] = np.zeros(1, np.float32)
    safetensors.numpy.save_file(tensors, tmp_path / "kl-f8.safetensors")

    config = FirstStageConfig(source=str(tmp_path / "kl-f8.safetensors"))
    networks = load_networks(config, 0, adversary=True)
    for name, expected in ((LPIPS, lpips), (DISCRIMINATOR, new_discriminator(1, width=2))):
        found, wanted = arrays_of(networks[name]), arrays_of(expected)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[path], wanted[path]) for path in wanted)
    assert DISCRIMINATOR not in load_networks(config, 0, adversary=False)


def test_lpips_is_named_where_it_is_missing(start, tmp_path):
    with pytest.raises(ConfigError, match=r"`vgg` .* perceptual_weight = 0"):
        load_networks(FirstStageConfig(source=start), 0, adversary=False)
    vgg = to_torch(randomized(abstract_lpips((2, 3, 4, 5, 6))).vgg, key_maps()["torchvision"])
    safetensors.numpy.save_file(vgg, tmp_path / "vgg16.safetensors")
    with pytest.raises(WeightsError, match=r"lin0\.model\.1\.weight"):
        load_networks(FirstStageConfig(source=start, vgg=str(tmp_path / "vgg16.safetensors")), 0, adversary=False)


def test_measured_scaling_factor_makes_unit_deviation(undisturbed, parts, start):
    """And the next stage finds it in the folder; the published one is kept unless it is asked for."""
    assert undisturbed[0].autoencoder.config.scaling_factor == 0.18215
    assert load_autoencoder(undisturbed[0].folder).config == undisturbed[0].autoencoder.config
    assert undisturbed[0].autoencoder.config.pixels == "imagenet"
    config = FirstStageConfig(source=start, **CONFIG)
    factor = measured_scale(undisturbed[0].autoencoder, parts.train, config)
    images = evenly_chosen(parts.train, config, 256, 2)
    assert len(images) == len(parts.train)
    moments = undisturbed[0].autoencoder.encode(normalized(images, config))
    latents = [moments.sample(jax.random.key(draw)) for draw in range(20)]
    assert factor * np.std(latents) == pytest.approx(1, abs=0.01)
    assert [config.measures_scale, FirstStageConfig(source="random:8").measures_scale] == [False, True]
    assert FirstStageConfig(source=start, scaling_factor="measured").measures_scale
    assert not FirstStageConfig(source="random:8", scaling_factor="kept").measures_scale


def test_impossible_settings_are_listed(parts, start, tmp_path):
    with pytest.raises(ConfigError) as caught:
        FirstStageConfig(image_size=8, kl_weight=-1.0, lpips="vgg.pth").check()
    for problem in ("image_size = 8", "kl_weight = -1.0", "lpips = 'vgg.pth'"):
        assert problem in str(caught.value)
    with pytest.raises(ConfigError, match="betas"):
        FirstStageTrainConfig(betas=(0.5, 1.0)).check()
    with pytest.raises(ConfigError, match="batch_size = 1: must be a multiple"):
        fit(parts, start, tmp_path / "run", batch_size=1)
    halving = dataclasses.replace(SHAPE, block_out_channels=(4, 4))
    save_autoencoder(randomized(abstract_autoencoder(halving)), tmp_path / "halving")
    odd = FirstStageConfig(source=str(tmp_path / "halving"), **{**CONFIG, "image_size": 17})
    with pytest.raises(ConfigError, match="image_size = 17: must be a multiple of 2"):
        fit_autoencoder(parts.train, odd, FirstStageTrainConfig(**TRAIN), workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
