import jax
import numpy as np
import pytest

import jaxad
from jaxad.diffusion.schedule import linear_schedule
from jaxad.features import FeatureCache
from jaxad.metrics import protocol
from jaxad.testing import check_detector
from jaxad.types import Features
from tests.detectors import peers

detector = peers.PEERS["retrieval"].make


def tokens(images, kinds=4, seed=0):
    """Images of several kinds in turn, [b n c] with large means and unequal scales."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(9)
    places, scale = fixed.normal(size=(kinds, 1, 32)), fixed.uniform(0.1, 20, 32)
    x = places[np.arange(images) % kinds] + 0.05 * rng.normal(size=(images, 16, 32))
    return ((x + 3 * fixed.normal(size=32)) * scale).astype(np.float32)


def fitted(parts, **changes):
    cache = FeatureCache(Features(tokens(len(parts.train)), (4, 4)), "")
    return detector(**{"memory": 1000, "retrieved": 64, "residual": "squared"} | changes).remember(
        parts.train, features=cache
    )


def judged(model, x):
    return model.judge(Features(x, (4, 4)), None, jax.random.split(jax.random.key(0), len(x)))


def test_a_patch_of_another_kind_of_image_is_strange(parts):
    model, x = fitted(parts), tokens(8, seed=1)
    mixed = x.copy()
    mixed[1, 6] = x[2, 6]
    normal, found = judged(model, x).maps, judged(model, mixed).maps
    assert np.argmax(found[1]) == 6
    assert found[1].max() > 10 * normal.max()


def test_image_scores_are_of_what_exceeds_the_residuals_of_patches_alike(parts):
    x = tokens(8, seed=1)
    # One kind of image is less alike in itself: all of its residuals are large.
    known = tokens(len(parts.train))
    rough = 1 + 2 * (np.arange(len(known)) % 4 == 3)
    known += rough[:, None, None] * np.random.default_rng(5).normal(size=known.shape).astype(np.float32)
    x += np.resize(rough, 8)[:, None, None] * np.random.default_rng(6).normal(size=x.shape).astype(np.float32)
    cache = FeatureCache(Features(known, (4, 4)), "")
    model = detector(memory=1000, retrieved=64, residual="squared").remember(parts.train, features=cache)
    judgement = judged(model, x)
    scores = np.asarray(protocol("exact-256").postprocess(judgement.maps)[1])
    assert scores[3] > 2 * scores[0]
    standard = model._standardize(x)
    known = model.denoiser.retrieve(standard.mean(1))
    expected = model.denoiser.expected_residual(standard, linear_schedule().alpha_bar[399], known)
    excess = np.asarray(judgement.maps) - np.asarray(expected).reshape(-1, 4, 4)
    np.testing.assert_allclose(judgement.scores, protocol("exact-256").postprocess(excess)[1], rtol=1e-2)
    assert judgement.scores[3] - judgement.scores[0] < 0.6 * (scores[3] - scores[0])
    plain = detector(image_score="protocol").remember(parts.train, features=cache)
    assert judged(plain, x).scores is None


@pytest.mark.parametrize("image_score", ["excess", "protocol"])
def test_a_share_of_what_is_expected_is_taken_off_the_map_alone(parts, image_score):
    x = tokens(8, seed=1)
    whole = fitted(parts)
    less = fitted(parts, expected_share=0.4, image_score=image_score)
    standard = whole._standardize(x)
    known = whole.denoiser.retrieve(standard.mean(1))
    expected = np.asarray(whole.denoiser.expected_residual(standard, linear_schedule().alpha_bar[399], known))
    before, found = judged(whole, x), judged(less, x)
    np.testing.assert_allclose(found.maps, before.maps - 0.4 * expected.reshape(-1, 4, 4), rtol=1e-4, atol=1e-5)
    if image_score == "excess":
        np.testing.assert_allclose(found.scores, before.scores, rtol=1e-5)
    else:
        assert found.scores is None


def least_residual(model, x, patches):
    """The oracle: every token beside every patch, group by group, on the scale that the residual is taken on."""
    if model.config.residual == "cosine":
        x, patches = (np.asarray(model._unstandardize(a)) for a in (x, patches))
    total = 0.0
    for own, those in zip(*(np.split(a, model.config.groups, -1) for a in (x, patches)), strict=True):
        if model.config.residual == "cosine":
            own, those = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (own, those))
            total = total + 1 - np.einsum("bnc,bkc->bnk", own, those).max(-1)
        else:
            total = total + np.square(own[:, :, None] - those[:, None]).sum(-1).min(-1)
    return total / model.config.groups


@pytest.mark.parametrize("changes", [{}, {"residual": "cosine"}, {"residual": "cosine", "groups": 2, "blocks": (0, 1)}])
def test_the_residual_may_stand_beside_that_of_the_nearest_patch(parts, changes):
    width = changes.get("groups", 1)
    known, x = (np.concatenate([tokens(n, seed=s + k) for k in range(width)], -1) for n, s in ((24, 0), (8, 5)))
    cache = FeatureCache(Features(np.resize(known, (len(parts.train), *known.shape[1:])), (4, 4)), "")
    both = []
    for nearest in (False, True):
        settings = {"memory": 1000, "retrieved": 64, "residual": "squared", "nearest": nearest} | changes
        both.append(detector(**settings).remember(parts.train, features=cache))
    plain, beside = both
    standard = plain._standardize(x)
    found = plain.denoiser.retrieve(plain._center(x))
    least = least_residual(plain, np.asarray(standard), np.asarray(plain.denoiser.unrotate(found.patches)))
    expected = np.sqrt(np.asarray(judged(plain, x).maps) * least.reshape(-1, 4, 4))
    np.testing.assert_allclose(judged(beside, x).maps, expected, rtol=2e-3, atol=1e-6)
    # What is expected of the remembered patches is such a mean, too.
    assert 0.3 < np.median(beside.denoiser.residuals[...]) / np.median(expected) < 3
    assert not np.allclose(beside.denoiser.residuals[...], plain.denoiser.residuals[...], rtol=0.05)


def test_groups_of_blocks_are_restored_each_by_itself(parts):
    """The map is the mean of those of two detectors that see half of the channels each."""
    wide = detector(memory=1000, retrieved=64, groups=2, blocks=(0, 1))
    assert wide.channels == 64
    halves = [fitted(parts, residual="cosine") for _ in range(2)]
    known = [tokens(len(parts.train), seed=seed) for seed in (0, 1)]
    x = [tokens(8, seed=seed) for seed in (2, 3)]
    x[1][3, 5] = x[1][2, 5]
    for half, own in zip(halves, known, strict=True):
        half.remember(parts.train, features=FeatureCache(Features(own, (4, 4)), ""))
    wide.remember(parts.train, features=FeatureCache(Features(np.concatenate(known, -1), (4, 4)), ""))
    expected = sum(np.asarray(judged(half, own).maps) for half, own in zip(halves, x, strict=True)) / 2
    found = judged(wide, np.concatenate(x, -1))
    np.testing.assert_allclose(found.maps, expected, rtol=0.05, atol=2e-4)
    assert np.asarray(found.maps)[3].argmax() == 5
    assert np.asarray(found.scores).argmax() == 3


@pytest.mark.parametrize(
    "changes", [{}, {"residual": "squared", "image_score": "protocol"}, {"groups": 2, "blocks": (0, 1)}]
)
def test_it_keeps_to_the_interface_and_finds_defects(parts, changes):
    model = detector(**changes).remember(parts.train)
    check_detector(model, parts.test)
    assert jaxad.evaluate(model, parts.test)["mean"]["image_auroc"] > 0.9
