import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import multivariate_normal

from jaxad.diffusion.retrieval import Known, RetrievalDenoiser, Sample
from jaxad.diffusion.schedule import linear_schedule
from jaxad.errors import DataError
from jaxad.types import Features

TIMESTEPS = (20, 250, 700)


def images(count=12, kinds=3, tokens=10, seed=0):
    """Images [i n c] of several kinds in turn, whose patches lie about a place of their own."""
    rng = np.random.default_rng(seed)
    places = 4 * np.random.default_rng(99).normal(size=(kinds, 5))
    spread = np.random.default_rng(98).normal(size=(5, 5)) * 0.4
    kind = np.arange(count) % kinds
    return (places[kind][:, None] + rng.normal(size=(count, tokens, 5)) @ spread).astype(np.float16).astype(np.float32)


def fitted(patches=1000, retrieved=30):
    denoiser, sample = RetrievalDenoiser(5, retrieved), Sample(patches)
    parts = [Features(part, (2, 5)) for part in (images()[:8], images()[8:])]
    assert len([*sample.passing(parts)]) == 2
    denoiser.fit(sample, np.asarray)
    return denoiser


def covariance(denoiser):
    directions, variances = (np.asarray(v[...], np.float64) for v in (denoiser.directions, denoiser.variances))
    return directions * variances @ directions.T


def retrieved(denoiser, x) -> Known:
    """What images [b n c] are compared with."""
    known = denoiser.retrieve(x.mean(1))
    assert known is not None
    return known


def unrotated(denoiser, known):
    return np.asarray(known, np.float32) @ np.asarray(denoiser.directions[...]).T


def test_its_guess_is_the_posterior_mean_at_every_level():
    denoiser, alpha_bar = fitted(), linear_schedule().alpha_bar[list(TIMESTEPS)]
    x_t = np.random.default_rng(1).normal(size=(3, 7, 5)).astype(np.float32) * 3
    known = retrieved(denoiser, images(3, seed=1))
    found = denoiser(x_t, jnp.asarray(alpha_bar, jnp.float32), known)
    for a, noisy, clean, means in zip(alpha_bar, x_t, found, unrotated(denoiser, known.patches), strict=True):
        spread = a * covariance(denoiser) + (1 - a) * np.eye(5)
        share = softmax([multivariate_normal(a**0.5 * m, spread).logpdf(noisy) for m in means], axis=0)
        gain = a**0.5 * covariance(denoiser) @ np.linalg.inv(spread)
        guesses = [m + (noisy - a**0.5 * m) @ gain.T for m in means]
        expected = sum(weight[:, None] * guess for weight, guess in zip(share, guesses, strict=True))
        np.testing.assert_allclose(clean, expected, rtol=2e-3, atol=5e-3)


def test_groups_are_denoised_side_by_side_by_patches_of_the_same_images():
    """As by a denoiser of each, which finds the same images alike."""

    def fitted(x, groups):
        denoiser, sample = RetrievalDenoiser(x.shape[-1], 30, groups), Sample(1000)
        assert len([*sample.passing([Features(x, (2, 5))])]) == 1
        denoiser.fit(sample, np.asarray)
        return denoiser

    x, alpha_bar = [images(seed=seed) for seed in (0, 3)], np.float32(linear_schedule().alpha_bar[250])
    both, alone = fitted(np.concatenate(x, -1), 2), [fitted(own, 1) for own in x]
    noisy = [np.sqrt(alpha_bar) * own[:3] + 0.5 for own in x]
    known = retrieved(both, np.concatenate(x, -1)[:3]).patches
    given = [(denoiser, *rest) for denoiser, *rest in zip(alone, noisy, np.split(known, 2, -1), strict=True)]
    guesses = [denoiser.guess(own, alpha_bar, means) for denoiser, own, means in given]
    wide = np.concatenate(noisy, -1)
    np.testing.assert_allclose(both.guess(wide, alpha_bar, known), np.concatenate(guesses, -1), atol=1e-4)
    shares = [np.asarray(denoiser.weights(own, alpha_bar, means)) for denoiser, own, means in given]
    np.testing.assert_allclose(both.weights(wide, alpha_bar, known), sum(shares) / 2, atol=1e-5)
    assert np.abs(shares[0] - shares[1]).max() > 0.2


def test_an_image_is_compared_with_those_most_like_it_and_never_with_a_copy():
    denoiser, x = fitted(), images()
    known = unrotated(denoiser, retrieved(denoiser, x[4:5]).patches)[0]
    # The others of its kind are 1, 7 and 10, and three images are looked at.
    expected = np.concatenate([x[1], x[7], x[10]])
    assert known.shape == expected.shape
    order = [np.lexsort(a.round(1).T) for a in (known, expected)]
    np.testing.assert_allclose(known[order[0]], expected[order[1]], atol=0.02)


@pytest.mark.parametrize(("limit", "share"), [(1000, 10), (40, 3), (5, 1)])
def test_every_image_keeps_an_equal_share_of_the_memory(limit, share):
    patches = fitted(limit).patches
    assert patches.shape == (12, share, 5)
    known, given = unrotated(fitted(limit), patches[...]), images()
    far = np.abs(known[:, :, None] - given[:, None]).max(-1)
    assert far.min(-1).max() < 0.02
    assert all(len(set(row.argmin(-1))) == share for row in far)


def test_patches_spread_by_half_of_what_the_nearest_ones_of_other_images_differ():
    x = images()
    total = np.zeros((5, 5))
    for kind in range(3):
        for number in range(kind, 12, 3):
            others = np.concatenate([x[i] for i in range(kind, 12, 3) if i != number])
            nearest = np.square(x[number][:, None] - others[None]).sum(-1).argmin(1)
            difference = x[number] - others[nearest]
            total += difference.T @ difference / len(difference)
    np.testing.assert_allclose(covariance(fitted()), total / 12 / 2, atol=1e-3)


def test_unfitted_it_takes_patches_for_white_noise():
    x_t, a = np.ones((1, 2, 3), np.float32), np.float32(0.36)
    denoiser = RetrievalDenoiser(3, 5)
    assert denoiser.retrieve(x_t.mean(1)) is None
    np.testing.assert_allclose(denoiser(x_t, a, None), 0.6 * x_t, rtol=1e-6)


def test_its_own_residuals_are_those_of_patches_without_their_image():
    denoiser, x, a = fitted(), images(), linear_schedule().alpha_bar[100]
    denoiser.learn_own_residuals(a, lambda x, restored, known: jnp.square(restored - x).sum(-1))
    known = retrieved(denoiser, x)
    restored = denoiser(np.float32(a**0.5) * x, np.float32(a), known)
    expected = np.take_along_axis(np.square(restored - x).sum(-1), np.asarray(denoiser.places[...]), 1)
    np.testing.assert_allclose(denoiser.residuals[...], expected, rtol=0.1, atol=2e-3)
    weights = np.asarray(denoiser.weights(np.float32(a**0.5) * x, np.float32(a), known.patches))
    found = denoiser.expected_residual(x, a, retrieved(denoiser, x))
    again = np.asarray(retrieved(denoiser, x).residuals)
    np.testing.assert_allclose(found, np.einsum("bnk,bk->bn", weights, again), rtol=1e-4)


def test_where_images_are_few_the_most_similar_one_repeats_in_place_of_the_image_itself():
    denoiser, sample = RetrievalDenoiser(5, 30), Sample(1000)
    two = images(2, kinds=2)
    x = np.concatenate([two[:1], two[:1], two[1:]])
    assert len([*sample.passing([Features(x, (2, 5))])]) == 1
    denoiser.fit(sample, np.asarray)
    found = unrotated(denoiser, retrieved(denoiser, x[:1]).patches)[0]
    distance = np.abs(found[:, None] - x[2][None]).max(-1).min(1)
    assert distance.max() < 0.02


def test_copies_of_one_image_are_refused():
    sample = Sample(1000)
    assert len([*sample.passing([Features(np.repeat(images(1), 3, 0), (2, 5))])]) == 1
    with pytest.raises(DataError, match="3 normal images: are one image or copies of it"):
        RetrievalDenoiser(5, 30).fit(sample, np.asarray)
