import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad.detectors.inp_former import DecoderBlock, rectified_attention, with_mining
from jaxad.memory.prototypes import cosine_similarity
from tests.detectors import peers

detector = peers.PEERS["inp-former"].make


@pytest.fixture(scope="module")
def encoded(parts):
    return peers.encoded(detector(), parts.train)


def test_features_are_means_of_groups_of_patches(parts, encoded):
    model = detector()
    images = np.stack([np.asarray(jax.image.resize(parts.train[i].image, (56, 56, 3), "linear")) for i in range(4)])
    taps = model.backbone.network.taps(model.backbone.normalization(images.astype(np.uint8)), (0, 1, 2, 3))
    for group in range(2):
        mean = (np.asarray(taps[2 * group]) + np.asarray(taps[2 * group + 1])) / 2
        np.testing.assert_allclose(encoded.tokens[..., 32 * group : 32 * group + 32], mean[:, 1:], atol=1e-4)


def test_prototypes_are_drawn_from_all_of_their_own_image(encoded):
    model, rng = peers.perturbed(detector(), 1.0, "extractor"), np.random.default_rng(1)
    before = np.asarray(model.prototypes(encoded)[1])
    moved = encoded.tokens.copy()
    moved[2, -1] += 10 * rng.normal(size=64)
    after = np.asarray(model.prototypes(dataclasses.replace(encoded, tokens=moved))[1])
    assert before.shape == (4, 3, 32)
    assert (np.abs(after - before).max((1, 2)) > 1e-6).tolist() == [False, False, True, False]


def test_the_decoder_mixes_prototypes_alone():
    block = DecoderBlock(8, 2, 16, dtype="float32", rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (2, 5, 8))
    np.testing.assert_array_equal(block(x, jnp.zeros((2, 3, 8))), np.zeros((2, 5, 8)))


def test_weights_are_scaled_cosines_above_zero():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(2, n, 2, 4)).astype(np.float32) for n in (5, 3, 3))
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    cosines = np.einsum("bnhd,bkhd->bhnk", unit(q), unit(k))
    weights = np.maximum(cosines, 0) * np.array([2, 3]).reshape(1, 2, 1, 1)
    found = rectified_attention(*(x.reshape(2, -1, 8) for x in (q, k, v)), jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(found, np.einsum("bhnk,bkhd->bnhd", weights, v).reshape(2, 5, 8), rtol=1e-4, atol=1e-6)


def test_the_last_decoder_blocks_restore_the_shallow_group(encoded):
    model = detector()
    x, prototypes = model.prototypes(encoded)
    before = np.stack(model.decode(x, prototypes))
    model.decoder[3].feed.fc2.bias[...] += 1.0
    after = np.stack(model.decode(x, prototypes))
    np.testing.assert_array_equal(before[1], after[1])
    np.testing.assert_allclose(after[0] - before[0], 0.5, atol=1e-5)


@pytest.mark.parametrize("power", [0.0, 1.0, 3.0])
def test_hard_points_pull_more(power):
    rng = np.random.default_rng(0)
    target, found = (jnp.asarray(rng.normal(size=(2, 10, 4)), jnp.float32) for _ in range(2))
    np.testing.assert_array_equal(with_mining(target, found, power), found)
    gradient = np.asarray(jax.grad(lambda x: with_mining(target, x, power).sum())(found))
    length = lambda x: np.linalg.norm(x, axis=-1)  # noqa: E731
    distance = 1 - (target * found).sum(-1) / length(target) / length(found)
    expected = (distance / distance.mean()) ** power
    np.testing.assert_allclose(gradient, np.broadcast_to(expected[..., None], gradient.shape), rtol=1e-4)


def test_what_is_restored_exactly_pulls_nothing():
    """Rounding leaves distances below 0, and their mean may be 0."""
    found = jnp.asarray(np.random.default_rng(0).normal(size=(2, 50, 4)), jnp.float32)
    for x in (found, jnp.ones_like(found)):
        gradient = jax.grad(lambda y, x=x: with_mining(x, y, 1.5).sum())(x)
        assert np.isfinite(gradient).all()


def test_coherence_is_the_distance_to_the_nearest_prototype(encoded):
    with_it, without = (detector(coherence=weight).loss(encoded, jax.random.key(0)) for weight in (0.5, 0.0))
    model = detector()
    x, prototypes = map(np.asarray, model.prototypes(encoded))
    unit = lambda a: a / np.linalg.norm(a, axis=-1, keepdims=True)  # noqa: E731
    cosines = unit(x) @ unit(prototypes).swapaxes(1, 2)
    np.testing.assert_allclose(cosine_similarity(x, prototypes), cosines, atol=1e-5)
    assert set(with_it[1]) == {"group_1", "group_2", "coherence"}
    assert float(with_it[1]["coherence"]) == pytest.approx((1 - cosines.max(-1)).mean(), abs=1e-5)
    assert float(with_it[0] - without[0]) == pytest.approx(0.5 * float(with_it[1]["coherence"]), abs=1e-5)


def test_maps_average_the_groups_and_prototypes_are_shown(encoded):
    model = detector()
    answer = peers.judged(model, encoded)
    x, prototypes = model.prototypes(encoded)
    targets, restored = np.split(encoded.tokens, 2, -1), map(np.asarray, model.decode(x, prototypes))
    cosines = [
        (t * r).sum(-1) / np.linalg.norm(t, axis=-1) / np.linalg.norm(r, axis=-1)
        for t, r in zip(targets, restored, strict=True)
    ]
    np.testing.assert_allclose(np.asarray(answer.maps).reshape(4, -1), 1 - np.mean(cosines, 0), atol=1e-5)
    assert answer.scores is not None
    assert peers.judged(detector(score="protocol"), encoded).scores is None
    near = np.asarray(answer.explanation.similarity)
    np.testing.assert_allclose(near.reshape(4, 3, 16).swapaxes(1, 2), cosine_similarity(x, prototypes), atol=1e-6)
    assert len(answer.explanation.prototypes) == 3
