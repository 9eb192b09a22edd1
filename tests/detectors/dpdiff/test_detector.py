import dataclasses
import math
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad import parallel
from jaxad.detectors.dpdiff import detector as dpdiff
from jaxad.detectors.dpdiff.levels import normal_residuals
from jaxad.diffusion.samplers import normal_per_image
from jaxad.diffusion.schedule import add_noise
from jaxad.errors import CheckpointError, ConfigError
from jaxad.features import Encoder
from jaxad.inference.predictor import Predictor
from jaxad.metrics import protocol
from jaxad.models.backbone import load_backbone
from jaxad.nn import module_state
from jaxad.testing import check_detector, toy_model, toy_training
from jaxad.training.step import DetectorTrainer
from jaxad.types import Batch, Features
from tests.training.test_trainer import assert_bit_equal

# Together these set every switch of the ablations to every value at least once.
SWITCHES = {
    "local only, cosine, several draws, per token": {
        "global_prototypes": 0,
        "residual": "cosine",
        "draws": 2,
        "standardize": "token",
        "prediction": "v",
        "antithetic": True,
        "precondition": "linear",
    },
    "global only, fresh noise, no scaling": {
        "local_prototypes": 0,
        "noise": "fresh",
        "standardize": "none",
        "prototype_pre_norm": False,
        "precision": "bfloat16",
    },
    "diffusion only, ancestral sampling": {
        "local_prototypes": 0,
        "global_prototypes": 0,
        "sampler": "ddpm",
        "start_timestep": 2,
        "width": 48,
        "tokens": 7,
        "prediction": "v",
        "precondition": "retrieval",
    },
    "prototype similarity": {"score": "prototype", "train_timesteps": (10, 100), "self_attention": False},
    "prototypes alone": {"denoiser": "none", "score": "prototype", "heads": 5, "width": 7, "tokens": 7},
    "detached": {
        "detach_prototypes": True,
        "groups": 2,
        "blocks": (0, 1),
        "sampling_steps": 1,
        "sampler": "ddpm",
        "noise": "fresh",
        "start_timestep": 1,
    },
}


def tokens(model, images=4, seed=0):
    grid = model.grid
    x = np.random.default_rng(seed).normal(size=(images, grid[0] * grid[1], model.channels))
    return Features(x.astype(np.float32), grid)


@pytest.mark.parametrize("switches", SWITCHES.values(), ids=SWITCHES.keys())
def test_every_switch_trains_and_predicts(switches):
    model = toy_model(**switches)
    features = tokens(model)
    graphdef, arrays = perturbed(model, scale=0.02)

    @jax.jit
    def train_and_predict(arrays, keys):
        """One step of gradient descent, then the map."""

        def loss(arrays):
            return module_state.merge(graphdef, arrays).loss(features, keys[0])

        (_, terms), gradients = jax.value_and_grad(loss, has_aux=True)(arrays)
        trained = {path: array - 0.01 * gradients[path] for path, array in arrays.items()}
        detector = module_state.merge(graphdef, trained)
        context = detector.context(features)
        return trained, terms, detector.score(features, detector.reconstruct(features, context, keys), context).maps

    arrays, terms, maps = train_and_predict(arrays, jax.random.split(jax.random.key(0), 4))
    assert all(np.isfinite(array).all() for array in (*arrays.values(), *terms.values(), maps))
    assert "diffusion" not in terms if model.denoiser is None else 0.5 < terms["diffusion"] < 2
    assert ("local" in terms) == (model.config.local_prototypes > 0)
    assert ("global" in terms) == (model.config.global_prototypes > 0)
    assert maps.shape == (4, 4, 4)
    assert maps.std() > 0


def test_without_a_denoiser_the_prototypes_learn_what_they_do_beside_one():
    alone, beside = toy_model(denoiser="none", score="prototype"), toy_model(score="prototype")
    few = module_state.split(alone)[1]
    assert few.keys() == {path for path in module_state.split(beside)[1] if not path.startswith("denoiser/")}
    graphdef, arrays = module_state.split(beside)
    beside = module_state.merge(graphdef, arrays | few)
    (total, terms), (whole, others) = (model.loss(tokens(model), jax.random.key(0)) for model in (alone, beside))
    assert terms == {name: value for name, value in others.items() if name != "diffusion"}
    np.testing.assert_allclose(total, whole - others["diffusion"], rtol=1e-5)
    config = alone.config
    np.testing.assert_allclose(total, config.local_weight * terms["local"] + config.global_weight * terms["global"])


def perturbed(model, scale=0.1):
    """The model with its gates open."""
    graphdef, arrays = module_state.split(model)
    rng = np.random.default_rng(1)
    names = module_state.split(model, nnx.Param, ...)[1].keys()
    moved = {p: a + scale * rng.normal(size=a.shape).astype(np.float32) if p in names else a for p, a in arrays.items()}
    return graphdef, moved


@pytest.mark.parametrize("detach", [False, True])
def test_the_diffusion_loss_reaches_the_extractors_unless_detached(detach):
    model = toy_model(detach_prototypes=detach, local_weight=0.0, global_weight=0.0)
    graphdef, arrays = perturbed(model)
    features = tokens(model)
    names = ("local/queries", "global_/queries", "denoiser/project_in/kernel")
    gradient = jax.jit(
        jax.grad(lambda few: module_state.merge(graphdef, arrays | few).loss(features, jax.random.key(0))[0])
    )({name: arrays[name] for name in names})
    assert [bool(np.any(gradient[name])) for name in names] == [not detach, not detach, True]


def test_loss_is_1_at_the_start_and_falls():
    model = toy_model()
    trainer = DetectorTrainer(model, toy_training(), parallel.make_mesh())
    state, features, diffusion, local = trainer.init(), tokens(model), [], []
    # Tokens of low rank: the noise in them can be told from the signal.
    features = Features((features.tokens[..., :2] @ np.ones((2, 32), np.float32)), features.grid)
    for step in range(40):
        state, metrics = trainer.step(state, features, jax.random.key(step))
        diffusion.append(float(metrics["diffusion"]))
        local.append(float(metrics["local"]))
    assert diffusion[0] == pytest.approx(1, abs=0.1)
    assert np.mean(diffusion[-5:]) < 0.75
    assert np.mean(local[-5:]) < 0.5 * local[0]


def test_statistics_are_those_of_all_training_tokens():
    model = toy_model()
    rng = np.random.default_rng(0)
    parts = [100 + 3 * rng.normal(size=(size, 16, 32)).astype(np.float32) for size in (5, 1, 9)]
    parts[1][..., 7] += 50
    model.prepare(Features(part, model.grid) for part in parts)
    everything = np.concatenate(parts).reshape(-1, 32).astype(np.float64)
    np.testing.assert_allclose(model.channel_mean[...], everything.mean(0), rtol=1e-6)
    np.testing.assert_allclose(model.channel_std[...], everything.std(0), rtol=1e-4)


@pytest.mark.parametrize("mode", ["token", "none"])
def test_other_scalings_learn_no_statistics(mode):
    model = toy_model(standardize=mode)
    model.prepare([tokens(model)])
    np.testing.assert_array_equal(model.channel_mean[...], 0)
    np.testing.assert_array_equal(model.channel_std[...], 1)


def test_encoding_is_the_mean_of_the_selected_blocks(parts):
    def encode(blocks):
        return next(Encoder(toy_model(blocks=blocks), batch_size=4).stream(parts.test))[0].tokens

    both, first, second = map(encode, ((0, 1), (0,), (1,)))
    np.testing.assert_allclose(both, (first + second) / 2, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(encode(None), second)


def test_groups_are_means_of_shallow_and_deep_blocks_side_by_side(parts):
    backbone = load_backbone("random:32x4")
    config = toy_model().config

    def encode(**changes):
        changed = dataclasses.replace(config, **changes)
        model = jaxad.DPDiff.create(changed, key=jax.random.key(0), backbone=backbone)
        return model, next(Encoder(model, batch_size=4).stream(parts.test))[0].tokens

    (grouped, wide), (_, shallow), (_, deep) = (
        encode(**changes) for changes in ({"groups": 2, "blocks": (3, 0, 2, 1)}, {"blocks": (0, 1)}, {"blocks": (2, 3)})
    )
    np.testing.assert_allclose(wide, np.concatenate([shallow, deep], -1), rtol=1e-4, atol=1e-5)
    assert (grouped.channels, grouped.denoiser.width) == (64, 64)
    one, _ = encode(blocks=(0, 1, 2, 3))
    assert grouped.inputs.identity != one.inputs.identity
    check_detector(grouped, parts.test)


@pytest.mark.parametrize("residual", ["squared", "cosine"])
def test_the_residual_of_groups_is_the_mean_of_theirs(residual):
    model = toy_model(residual=residual, standardize="none", groups=2, blocks=(0, 1))
    half = toy_model(residual=residual, standardize="none")
    x, other = tokens(model, 2), tokens(model, 2, seed=1)
    x.tokens[..., 32:] *= 5
    parts = [
        half.score(*(Features(f.tokens[..., part], f.grid) for f in (x, other)), {}).maps
        for part in (slice(0, 32), slice(32, 64))
    ]
    np.testing.assert_allclose(model.score(x, other, {}).maps, (parts[0] + parts[1]) / 2, rtol=1e-4)


def test_groups_that_a_backbone_cannot_have_are_refused():
    with pytest.raises(ConfigError, match="groups"):
        toy_model(groups=2, blocks=(1,))
    with pytest.raises(ConfigError, match="Vision Transformer"):
        toy_model(groups=2, backbone="random:resnet18", image_size=64)


def test_squared_residual_is_a_sum_over_channels():
    model, x = toy_model(standardize="none"), tokens(toy_model(), 2)
    reconstruction = Features(x.tokens + 0.5, x.grid)
    np.testing.assert_allclose(model.score(x, reconstruction, {}).maps, np.full((2, 4, 4), 32 * 0.25), rtol=1e-4)


def test_cosine_residual_is_measured_in_the_space_of_the_backbone():
    model, x = toy_model(residual="cosine"), tokens(toy_model(), 2)
    model.channel_mean[...], model.channel_std[...] = jnp.full(32, 2.0), jnp.full(32, 3.0)
    other = tokens(model, 2, seed=1)
    found = model.score(x, other, {}).maps.reshape(2, 16)
    back = other.tokens * 3 + 2
    product = (x.tokens * back).sum(-1) / np.linalg.norm(x.tokens, axis=-1) / np.linalg.norm(back, axis=-1)
    np.testing.assert_allclose(found, 1 - product, rtol=1e-4, atol=1e-5)


def test_prototype_score_is_the_distance_to_the_nearest():
    model, x = toy_model(score="prototype", standardize="none"), tokens(toy_model(), 1)
    context = {"local": x.tokens[:, 3:5], "global": x.tokens[:, 9:10]}
    found = np.asarray(model.score(x, None, context).maps).ravel()
    np.testing.assert_allclose(found[[3, 4, 9]], 0, atol=1e-5)
    assert found[[0, 1, 2, 5, 15]].min() > 0.1


def test_a_perfect_denoiser_leaves_no_residual():
    model = toy_model(start_timestep=400, standardize="none")
    x = tokens(model, 2)
    schedule = model._schedule
    perfect = lambda x_s, prototypes, s: (  # noqa: E731
        (x_s - jnp.sqrt(schedule.alpha_bar_at(s))[:, None, None] * x.tokens)
        / jnp.sqrt(1 - schedule.alpha_bar_at(s))[:, None, None]
    )
    object.__setattr__(model, "denoiser", perfect)
    keys = jax.random.split(jax.random.key(0), 2)
    reconstruction = model.reconstruct(x, {}, keys)
    np.testing.assert_allclose(reconstruction.tokens, x.tokens, atol=1e-4)
    assert float(model.score(x, reconstruction, {}).maps.max()) < 1e-6


def test_an_untrained_denoiser_predicts_no_noise_so_that_noise_is_what_remains():
    model = toy_model(standardize="none")
    x, keys = tokens(model, 2), jax.random.split(jax.random.key(0), 2)
    reconstruction = jax.jit(lambda: model.reconstruct(x, model.context(x), keys).tokens)()
    alpha_bar = model._schedule.alpha_bar[250]
    noise = (np.asarray(reconstruction) - x.tokens) * np.sqrt(alpha_bar / (1 - alpha_bar))
    assert abs(noise.mean()) < 0.1
    assert noise.std() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "switches",
    [
        {"sampling_steps": 1, "draws": 3},
        {"sampling_steps": 3, "noise": "fresh", "prediction": "v"},
        {"sampler": "ddpm", "start_timestep": 6},
    ],
    ids=str,
)
def test_the_noise_of_a_pair_cancels_where_the_denoiser_is_linear(switches):
    def reconstruct(seed, antithetic):
        model = toy_model(antithetic=antithetic, standardize="none", **switches)
        x = tokens(model, 2)
        linear = lambda x_s, prototypes, s: 0.3 * x_s + 0.5 * prototypes.mean(1)[:, None] + 0.2  # noqa: E731
        object.__setattr__(model, "denoiser", linear)
        return model.reconstruct(x, model.context(x), jax.random.split(jax.random.key(seed), 2)).tokens

    single, pairs = ([reconstruct(seed, antithetic) for seed in (0, 1)] for antithetic in (False, True))
    np.testing.assert_allclose(*pairs, atol=1e-5)
    assert np.abs(single[0] - single[1]).max() > 1e-2


@pytest.mark.parametrize(
    "switches",
    [
        {"draws": 4},
        {"draws": 3, "antithetic": True, "noise": "fresh"},
        {"draws": 2, "antithetic": True, "sampler": "ddpm", "start_timestep": 6},
        {"draws": 2, "precondition": "retrieval", "memory": 200, "retrieved": 24},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("images", "together"), [(1, {2: 2, 4: 4, 6: 3}), (2, {2: 2, 4: 2, 6: 2}), (3, {2: 1, 4: 1, 6: 1})]
)
def test_few_images_have_several_draws_at_once_which_are_those_of_one_by_one(switches, images, together, monkeypatch):
    model = toy_model(**switches)
    x, keys = tokens(model, images), jax.random.split(jax.random.key(0), images)
    model.prepare([tokens(model, 8)])
    kernel = model.denoiser.project_out.kernel
    kernel[...] = jax.random.normal(jax.random.key(1), kernel.shape)

    def reconstruct(x):
        return model.reconstruct(x, model.context(x), keys).tokens

    at_once = reconstruct(x)
    draws = switches["draws"] * (2 if switches.get("antithetic") else 1)
    scans = [eqn.params["length"] for eqn in jax.make_jaxpr(reconstruct)(x).eqns if eqn.primitive.name == "scan"]
    assert draws // together[draws] in scans
    monkeypatch.setattr(dpdiff, "AT_ONCE", 1)
    np.testing.assert_allclose(at_once, reconstruct(x), atol=1e-4)


def low_rank(model, images=64):
    """Tokens of five directions, with large means and unequal scales."""
    rng = np.random.default_rng(4)
    mix = rng.normal(size=(5, model.channels)) * rng.uniform(0.5, 9, model.channels)
    x = rng.normal(size=(images, 16, 5)) @ mix + 30 * rng.normal(size=model.channels)
    return Features(x.astype(np.float32), model.grid)


@pytest.mark.parametrize("standardize", ["channel", "token", "none"])
def test_the_linear_denoiser_is_that_of_the_tokens_as_they_are_diffused(standardize):
    model = toy_model(precondition="linear", standardize=standardize)
    features = low_rank(model)
    model.prepare(Features(features.tokens[start : start + 30], features.grid) for start in (0, 30, 60))
    x = np.asarray(model._standardize(features.tokens), np.float64).reshape(-1, model.channels)
    assert model.linear is not None
    directions, variances = (np.asarray(v[...]) for v in (model.linear.directions, model.linear.variances))
    scale = np.square(x).mean()
    np.testing.assert_allclose(model.linear.mean[...], x.mean(0), atol=1e-3 * scale**0.5)
    np.testing.assert_allclose(directions * variances @ directions.T, np.cov(x.T, bias=True), atol=1e-3 * scale)
    if standardize == "channel":
        np.testing.assert_allclose(x.std(0), 1, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_training_begins_with_the_linear_denoiser(prediction):
    model = toy_model(
        precondition="linear",
        prediction=prediction,
        train_timesteps=(250, 251),
        sampling_steps=1,
        antithetic=True,
    )
    features = low_rank(model)
    model.prepare([features])
    x, a = np.asarray(model._standardize(features.tokens)), model._schedule.alpha_bar[250]
    assert model.linear is not None
    keys = jax.random.split(jax.random.key(0), len(x))
    reconstruction = model.reconstruct(features, model.context(features), keys)
    expected = model.linear(np.sqrt(a).astype(np.float32) * x, np.float32(a))
    np.testing.assert_allclose(reconstruction.tokens, expected, atol=1e-4)
    variances = np.asarray(model.linear.variances[...])
    least = (variances * (a if prediction == "epsilon" else 1) / (a * variances + 1 - a)).mean()
    assert model.loss(features, jax.random.key(0))[1]["diffusion"] == pytest.approx(least, rel=0.05)


def test_the_linear_denoiser_is_resumed_and_restored(parts, tmp_path):
    def fit(workdir, steps):
        training = toy_training(steps=steps, checkpoint_every=2, schedule="constant")
        return jaxad.fit(toy_model(precondition="linear"), parts.train, training, workdir=tmp_path / workdir)

    whole = fit("whole", 4).model
    fit("stopped", 4)
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "4")
    resumed = fit("stopped", 4).model
    assert np.asarray(whole.linear.variances[...]).std() > 0.1
    assert_bit_equal(resumed, whole)
    assert_bit_equal(jaxad.restore(tmp_path / "whole").detector, whole)


def remembering(**changes):
    """A model that remembers 24 images, and their features; they are of no standard scale."""
    settings = {"precondition": "retrieval", "memory": 200, "retrieved": 24, "sampling_steps": 1, "antithetic": True}
    model = toy_model(**settings | {"start_timestep": 100} | changes)
    features = low_rank(model, images=24)
    features = Features(features.tokens.astype(np.float16), features.grid)
    model.prepare(Features(features.tokens[start : start + 9], features.grid) for start in (0, 9, 18))
    return model, features


@pytest.mark.parametrize("prediction", ["epsilon", "v"])
def test_training_begins_with_the_denoiser_by_retrieval(prediction):
    model, features = remembering(prediction=prediction, train_timesteps=(100, 101))
    x, a = np.asarray(model._standardize(features.tokens)), np.float32(model._schedule.alpha_bar[100])
    np.testing.assert_allclose(x.reshape(-1, model.channels).std(0), 1, rtol=1e-2)
    known = model.nearby.retrieve(x.mean(1))
    keys = jax.random.split(jax.random.key(0), len(x))
    noise = normal_per_image(jax.vmap(lambda k: jax.random.split(jax.random.fold_in(k, 0), 3))(keys)[:, 0], x.shape[1:])
    expected = sum(model.nearby(add_noise(x, sign * noise, a), a, known) for sign in (1, -1)) / 2
    reconstruction = model.reconstruct(features, model.context(features), keys)
    np.testing.assert_allclose(reconstruction.tokens, expected, atol=2e-3)
    # What the loss is of, in either parametrization, is the error of this guess.
    error = np.square(model.nearby(add_noise(x, noise, a), a, known) - x).mean()
    scale = a / (1 - a) if prediction == "epsilon" else 1 / (1 - a)
    assert model.loss(features, jax.random.key(0))[1]["diffusion"] == pytest.approx(error * scale, rel=0.1)


def test_the_denoiser_sees_the_guess_that_it_mends():
    model, features = remembering()
    graphdef, arrays = perturbed(model)

    @jax.jit
    def loss(scale):
        model = module_state.merge(graphdef, arrays | {"guide/kernel": scale * arrays["guide/kernel"]})
        return model.loss(features, jax.random.key(0))[1]["diffusion"]

    assert abs(loss(1.0) - loss(0.0)) > 1e-3


def test_image_scores_are_of_what_exceeds_the_residuals_of_patches_alike():
    model, features = remembering(image_score="excess")
    keys = jax.random.split(jax.random.key(0), len(features.tokens))
    batch = Batch({}, np.zeros(24, np.uint32), np.ones(24, bool))
    assert model.judge(features, batch, keys).scores is None
    model.finish(Features(features.tokens[start : start + 9], features.grid) for start in (0, 9, 18))
    means, kept = normal_residuals(model, [features], model.nearby.places[...])
    np.testing.assert_allclose(model.nearby.residuals[...], kept[..., 0], rtol=1e-2)
    x = model._standardize(features.tokens)
    expected = model.nearby.expected_residual(x, model._schedule.alpha_bar[999], model.nearby.retrieve(x.mean(1)))
    judgement = model.judge(features, batch, keys)
    excess = np.asarray(judgement.maps) - np.asarray(expected).reshape(-1, *model.grid)
    np.testing.assert_allclose(judgement.scores, protocol("exact-256").postprocess(excess)[1], rtol=1e-3)
    assert 0.5 < expected.mean() / means[0] < 1.5


def test_a_share_of_what_is_expected_is_taken_off_the_map():
    model, features = remembering(expected_share=0.4)
    keys = jax.random.split(jax.random.key(0), len(features.tokens))
    batch = Batch({}, np.zeros(24, np.uint32), np.ones(24, bool))
    assert model.finishes
    residuals = model.judge(features, batch, keys).maps
    model.finish([features])
    x = model._standardize(features.tokens)
    expected = model.nearby.expected_residual(x, model._schedule.alpha_bar[999], model.nearby.retrieve(x.mean(1)))
    judgement = model.judge(features, batch, keys)
    np.testing.assert_allclose(
        judgement.maps, residuals - 0.4 * np.asarray(expected).reshape(residuals.shape), rtol=1e-3, atol=1e-4
    )
    assert judgement.scores is None


@pytest.mark.parametrize("levels", [None, (100, 300)])
def test_the_residual_may_stand_beside_that_of_the_nearest_patch(levels):
    keys, both = jax.random.split(jax.random.key(0), 24), []
    for nearest in (False, True):
        model, features = remembering(nearest=nearest, residual="squared", image_score="excess", levels=levels)
        both.append(model)
    plain, beside = both
    x = np.asarray(plain._standardize(features.tokens))
    patches = np.asarray(plain.nearby.unrotate(plain.nearby.retrieve(x.mean(1)).patches))
    least = np.square(x[:, :, None] - patches[:, None]).sum(-1).min(-1).reshape(-1, *plain.grid)
    context = plain.context(features)
    expected, found = (
        np.asarray(
            model.residual(features, context, keys)[0]
            if levels is None
            else model.level_residuals(features, context, keys)[1]
        )
        for model in both
    )
    least = least if levels is None else least[..., None]
    np.testing.assert_allclose(found, np.sqrt(expected * least), rtol=1e-3, atol=1e-3)
    beside.finish([features])
    means, kept = normal_residuals(beside, [features], beside.nearby.places[...])
    scale = means if levels else np.ones(1)
    np.testing.assert_allclose(beside.nearby.residuals[...], (kept / scale).mean(-1), rtol=1e-2)


def test_no_micro_batch_is_planned_before_it_is_known_what_is_remembered(parts, tmp_path):
    training = toy_training(micro_batch="auto")
    with pytest.raises(ConfigError, match='micro_batch = "auto": how much this detector remembers'):
        jaxad.fit(toy_model(precondition="retrieval"), parts.train, training, workdir=tmp_path / "run")


def test_what_is_remembered_is_resumed_and_restored(parts, tmp_path):
    settings = {"precondition": "retrieval", "memory": 300, "retrieved": 32, "image_score": "excess"}

    def fit(workdir):
        training = toy_training(steps=4, checkpoint_every=2, schedule="constant")
        return jaxad.fit(toy_model(**settings), parts.train, training, workdir=tmp_path / workdir)

    whole = fit("whole").model
    fit("stopped")
    shutil.rmtree(tmp_path / "stopped" / "checkpoints" / "4")
    assert whole.nearby.residuals.filled
    assert_bit_equal(fit("stopped").model, whole)
    assert_bit_equal(jaxad.restore(tmp_path / "whole").detector, whole)
    with pytest.raises(CheckpointError, match="start_timestep"):
        jaxad.restore(tmp_path / "whole", start_timestep=20)


def test_what_is_made_of_remembered_residuals_may_change_where_there_are_any(parts, tmp_path):
    def fit(workdir, **settings):
        model = toy_model(precondition="retrieval", memory=300, retrieved=32, **settings)
        return jaxad.fit(model, parts.train, toy_training(steps=1), workdir=tmp_path / workdir).model

    expecting = fit("expecting", expected_share=0.5)
    batch, keys = Batch({}, np.zeros(4, np.uint32), np.ones(4, bool)), jax.random.split(jax.random.key(0), 4)
    shape = math.prod(expecting.grid), expecting.channels
    features = Features(np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32), expecting.grid)
    half = expecting.judge(features, batch, keys)
    changed = jaxad.restore(tmp_path / "expecting", expected_share=0.0, image_score="excess").detector
    whole = changed.judge(features, batch, keys)
    assert (whole.maps > half.maps).all()
    assert half.scores is None
    assert whole.scores is not None
    with pytest.raises(CheckpointError, match="nearest"):
        jaxad.restore(tmp_path / "expecting", nearest=True)
    none = fit("none")
    assert jaxad.restore(tmp_path / "none", nearest=True).detector.config.nearest
    assert "nearest" in dataclasses.replace(none.config, levels=(100, 300)).settled()
    assert not none.nearby.residuals.filled
    for settings in ({"expected_share": 0.5}, {"image_score": "excess"}):
        with pytest.raises(CheckpointError, match=next(iter(settings))):
            jaxad.restore(tmp_path / "none", **settings)


def test_levels_count_alike_however_large_their_residuals_are():
    model = toy_model(levels=(20, 600), sampling_steps=1, standardize="none")
    x, keys = tokens(model, 3), jax.random.split(jax.random.key(0), 3)
    batch = Batch({}, np.zeros(3, np.uint32), np.ones(3, bool))
    residuals = np.asarray(model.level_residuals(x, model.context(x), keys)[1])
    assert residuals[..., 1].min() > 10 * residuals[..., 0].max()
    np.testing.assert_allclose(model.judge(x, batch, keys).maps, residuals.mean(-1), rtol=1e-4)
    model.finish(Features(x.tokens[start : start + 2], x.grid) for start in (0, 2))
    means = np.asarray(model.level_means[...])
    # Untrained, a denoiser leaves the noise, whose mean square is known.
    a = model._schedule.alpha_bar[[20, 600]]
    np.testing.assert_allclose(means, 32 * (1 - a) / a, rtol=0.2)
    np.testing.assert_allclose(model.judge(x, batch, keys).maps, (residuals / means).mean(-1), rtol=1e-4)


def test_means_of_levels_are_measured_at_the_end_and_hold_for_their_settings(parts, tmp_path):
    run = jaxad.fit(
        toy_model(levels=(50, 200), sampling_steps=1), parts.train, toy_training(steps=2), workdir=tmp_path / "run"
    )
    means = np.asarray(run.model.level_means[...])
    assert (means != 1).all()
    stream = Encoder(run.model, batch_size=8).stream(parts.train)
    np.testing.assert_allclose(normal_residuals(run.model, (batch for batch, _ in stream))[0], means, rtol=1e-2)
    assert_bit_equal(jaxad.restore(tmp_path / "run").detector, run.model)
    with pytest.raises(CheckpointError, match=r"draws, levels"):
        jaxad.restore(tmp_path / "run", levels=(50, 100), draws=2, start_timestep=30)
    assert jaxad.restore(tmp_path / "run", start_timestep=30).detector.config.start_timestep == 30


def test_training_sees_windows_of_tokens_with_their_places():
    model = toy_model(tokens=6, standardize="none", train_timesteps=(0, 1), score="prototype")
    x, seen = tokens(model), []
    object.__setattr__(model, "denoiser", lambda *given: seen.append(given) or jnp.zeros_like(given[0]))
    for seed in (0, 1):
        model.loss(x, jax.random.key(seed))
    (noisy, _, _, places), (_, _, _, others) = seen
    assert places.shape == (4, 6)
    assert (places != others).any()
    assert (places[0] != places[1]).any()
    np.testing.assert_allclose(noisy, np.take_along_axis(x.tokens, places[..., None], axis=1), atol=0.1)


def test_a_step_on_windows_costs_what_images_of_that_size_do():
    def operations(**changes):
        model = toy_model(**changes)
        graphdef, arrays, rest = module_state.split(model, nnx.Param, ...)
        x, key = tokens(model), jax.random.key(0)
        step = jax.jit(jax.grad(lambda arrays: module_state.merge(graphdef, {**arrays, **rest}).loss(x, key)[0]))
        return step.lower(arrays).cost_analysis()["flops"]

    small = operations()
    assert operations(image_size=112, tokens=16) == pytest.approx(small, rel=0.1)
    assert operations(image_size=112) > 2.5 * small


def test_explanations_have_one_map_for_each_named_prototype(parts):
    model = toy_model()
    shown, image = next(Predictor(model, batch_size=2).explain(parts.test, [0]))
    np.testing.assert_array_equal(image, parts.test[0].image)
    assert shown.prototypes == ("local 1", "local 2", "local 3", "global 1", "global 2")
    chex.assert_shape([shown.before, shown.after, shown.similarity], [(4, 4, 32), (4, 4, 32), (5, 4, 4)])
    assert np.abs(shown.similarity).max() <= 1.0001


def test_heads_must_divide_the_widths():
    with pytest.raises(ConfigError) as error:
        toy_model(heads=5, prototype_heads=3)
    assert "heads = 5" in str(error.value)
    assert "prototype_heads = 3" in str(error.value)


def test_the_same_key_makes_the_same_detector():
    one, two = (module_state.split(toy_model())[1] for _ in range(2))
    assert [path for path in one if not np.array_equal(one[path], two[path])] == []
    other = jaxad.DPDiff.create(toy_model().config, key=jax.random.key(1))
    assert not np.array_equal(other.local.queries[...], one["local/queries"])
