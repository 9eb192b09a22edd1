import dataclasses
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad import parallel
from jaxad.config import TrainConfig
from jaxad.detectors.dinomaly import Bottleneck, Dinomaly, linear_attention, with_easy_gradient
from jaxad.nn import module_state
from jaxad.testing import check_detector
from jaxad.training.step import DetectorTrainer
from tests.detectors import peers

detector = peers.PEERS["dinomaly"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


TRAINING: dict[str, Any] = {"learning_rate": 2e-3, "clip_norm": 0.1, "weight_decay": 1e-4}
TRAINING |= {"steps": 6, "batch_size": 4, "checkpoint_every": 2, "log_every": 1}


def test_features_are_means_of_groups_with_the_class_token_beside_them(parts, encoded):
    model = detector()
    images = np.stack([np.asarray(jax.image.resize(parts.train[i].image, (56, 56, 3), "linear")) for i in range(4)])
    taps = model.backbone.network.taps(model.backbone.normalization(images.astype(np.uint8)), (0, 1, 2, 3))
    deep = (np.asarray(taps[2]) + np.asarray(taps[3])) / 2
    shallow = (np.asarray(taps[0]) + np.asarray(taps[1])) / 2
    np.testing.assert_allclose(encoded.tokens[..., :32], shallow[:, 1:], atol=1e-4)
    np.testing.assert_allclose(encoded.tokens[..., 32:], deep[:, 1:], atol=1e-4)
    np.testing.assert_allclose(encoded.extras["leading"][..., 32:], deep[:, :1], atol=1e-4)


def test_class_token_and_every_patch_matter_to_all_others(encoded):
    model = detector(dropout=0.0)
    model, rng = peers.perturbed(model, 0.3), np.random.default_rng(1)
    here = np.stack(model.restore(encoded))
    other = dataclasses.replace(encoded, extras={"leading": encoded.extras["leading"] + rng.normal(size=64)})
    moved = encoded.tokens.copy()
    moved[:, -1] += rng.normal(size=64)
    for changed in (other, dataclasses.replace(encoded, tokens=moved)):
        assert (np.abs(np.stack(model.restore(changed)) - here)[:, :, 0].max(-1) > 1e-4).all()


def test_the_last_decoder_blocks_restore_the_shallow_group(encoded):
    model = detector()
    before = np.stack(model.restore(encoded))
    model.decoder[3].fc2.bias[...] += 1.0
    after = np.stack(model.restore(encoded))
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_allclose(after[0] - before[0], 0.5, atol=1e-5)


def test_linear_attention_is_attention_with_positive_features():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, 5, 8)).astype(np.float32) for _ in range(3))
    found = np.asarray(linear_attention(q, k, v, 2))
    f = lambda x: np.where(x > 0, x + 1, np.exp(x))  # noqa: E731
    for head in range(2):
        at = slice(4 * head, 4 * head + 4)
        weights = f(q[..., at]) @ f(k[..., at]).swapaxes(1, 2)
        expected = weights / weights.sum(-1, keepdims=True) @ v[..., at]
        np.testing.assert_allclose(found[..., at], expected, rtol=1e-5, atol=1e-6)


def test_queries_without_any_feature_mix_nothing():
    q, k, v = -100 * jnp.ones((1, 3, 4)), jnp.ones((1, 3, 4)), jnp.ones((1, 3, 4))
    np.testing.assert_array_equal(linear_attention(q, k, v, 2), np.zeros((1, 3, 4)))
    assert np.isfinite(jax.grad(lambda q: linear_attention(q, k, v, 2).sum())(q)).all()


@pytest.mark.parametrize(("share", "hard"), [(0.0, 20), (0.5, 10), (0.9, 2), (0.99, 1)])
def test_easy_points_keep_their_values_and_lose_gradient(share, hard):
    rng = np.random.default_rng(0)
    target, found = (jnp.asarray(rng.normal(size=(2, 10, 4)), jnp.float32) for _ in range(2))
    np.testing.assert_array_equal(with_easy_gradient(target, found, share, 0.1), found)
    gradient = np.asarray(jax.grad(lambda x: with_easy_gradient(target, x, share, 0.1).sum())(found))[..., 0].ravel()
    length = lambda x: np.linalg.norm(x, axis=-1)  # noqa: E731
    distance = (1 - (target * found).sum(-1) / length(target) / length(found)).ravel()
    far = np.argsort(distance)[::-1][:hard]
    assert set(np.flatnonzero(gradient == 1)) == set(far.tolist())
    np.testing.assert_allclose(np.delete(gradient, far), 0.1, rtol=1e-6)


def test_the_share_of_easy_points_grows_with_the_steps(encoded):
    model = detector(dropout=0.0, easy_steps=100)
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)

    @jax.jit
    @jax.value_and_grad
    def loss(params, step):
        return module_state.merge(graphdef, rest | params).loss_at(encoded, jax.random.key(0), step)[0]

    values, gradients = zip(*(loss(trained, jnp.int32(step)) for step in (0, 50, 100, 900)), strict=True)
    assert len(set(map(float, values))) == 1
    sizes = [float(jnp.linalg.norm(g["bottleneck/fc2/kernel"])) for g in gradients]
    assert sizes[0] > sizes[1] > sizes[2] == sizes[3]
    assert all(float(jnp.abs(g).max()) > 0 for g in gradients[0].values())
    whole = model.loss(encoded, jax.random.key(0))
    assert float(whole[0]) == pytest.approx(float(values[0]))
    assert set(whole[1]) == {"group_1", "group_2"}


def test_training_tells_the_loss_its_step(encoded, monkeypatch):
    def loss_at(self, features, key, step):
        return jnp.square(self.bottleneck.fc2.bias[...] - 1).sum(), {"at": 1.0 * step}

    monkeypatch.setattr(Dinomaly, "loss_at", loss_at)
    trainer = DetectorTrainer(detector(), TrainConfig(**TRAINING), parallel.make_mesh())
    state, seen = trainer.init(), []
    for _ in range(3):
        state, metrics = trainer.step(state, encoded, jax.random.key(0))
        seen.append(float(metrics["at"]))
    assert seen == [0.0, 1.0, 2.0]


def test_dropout_is_of_training_alone(encoded):
    layer = Bottleneck(64, 256, 0.4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jnp.ones((4, 100, 64))
    assert (np.asarray(layer(x, jax.random.key(1))) == 0).mean() == pytest.approx(0.4, abs=0.02)
    np.testing.assert_array_equal(layer(x), layer(x))
    model = detector()
    one, same, other = (float(model.loss(encoded, jax.random.key(seed))[0]) for seed in (0, 0, 1))
    assert one == same != other
    np.testing.assert_array_equal(peers.judged(model, encoded).maps, peers.judged(model, encoded).maps)


def test_maps_average_the_groups_and_scores_their_highest_hundredth(encoded):
    model = detector()
    answer = peers.judged(model, encoded)
    targets, restored = np.split(encoded.tokens, 2, -1), model.restore(encoded)
    cosines = [
        (t * r).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(r, axis=-1)
        for t, r in zip(targets, map(np.asarray, restored), strict=True)
    ]
    np.testing.assert_allclose(np.asarray(answer.maps).reshape(4, -1), 1 - np.mean(cosines, 0), atol=1e-5)
    assert (np.asarray(answer.scores) <= answer.maps.max((1, 2)) + 1e-6).all()
    assert (np.asarray(answer.scores) > answer.maps.mean((1, 2))).all()
    assert peers.judged(detector(score="protocol"), encoded).scores is None


@pytest.mark.parametrize("optimizer", ["stable-adamw", "muon"])
def test_it_is_fitted_resumed_and_restored(parts, tmp_path, optimizer):
    training = TrainConfig(**TRAINING, optimizer=optimizer)
    model = detector()
    run = jaxad.fit(model, parts.train, training, workdir=tmp_path / "one")
    check_detector(run.model, parts.test)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "6")
    jaxad.fit(detector(), parts.train, training, workdir=tmp_path / "two")
    one, two = (module_state.split(jaxad.restore(tmp_path / name).detector)[1] for name in ("one", "two"))
    assert [path for path in one if not np.array_equal(one[path], two[path])] == []
    assert not np.array_equal(one["decoder/0/qkv/kernel"], module_state.split(model)[1]["decoder/0/qkv/kernel"])
