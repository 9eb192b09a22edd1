import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.memory.moments import channel_correlations, channel_scales, moments


def batches(rng, sizes, groups=2, width=3):
    mix = rng.normal(size=(groups, width, width))
    offset = np.array([0.0, 900.0])[:groups, None]
    for size in sizes:
        yield (np.einsum("mgd,gde->mge", rng.normal(size=(size, groups, width)), mix) + offset).astype(np.float32)


@pytest.mark.parametrize("sizes", [(400,), (7, 300, 1, 92), (1,) * 50])
def test_a_stream_has_the_moments_of_its_whole_however_it_is_cut(sizes):
    whole = np.concatenate(list(batches(np.random.default_rng(0), sizes))).astype(np.float64)
    seen, mean, covariance = moments(batches(np.random.default_rng(0), sizes), 2, 3)
    assert seen == len(whole)
    np.testing.assert_allclose(mean, whole.mean(0), rtol=1e-6, atol=1e-6)
    for group in range(2):
        expected = np.cov(whole[:, group].T, bias=True)
        np.testing.assert_allclose(covariance[group], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_channels_have_the_moments_of_the_whole_stream():
    rng = np.random.default_rng(0)
    whole = (rng.normal(size=(60, 4, 3)) @ rng.normal(size=(3, 3)) + [0, 5, 900]).astype(np.float32)
    whole[..., 1] = 5
    flat = whole.astype(np.float64).reshape(-1, 3)
    mean, std, correlation = channel_correlations([whole[:7], whole[7:]], 3)
    for found, expected in ((mean, flat.mean(0)), (std, flat.std(0) + 1e-6)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    varied = [0, 2]
    np.testing.assert_allclose(correlation[np.ix_(varied, varied)], np.corrcoef(flat[:, varied].T), atol=1e-4)
    for found, expected in zip(channel_scales([whole[:7], whole[7:]], 3), (mean, std), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_seen_has_no_moments():
    seen, mean, covariance = moments([], 1, 4)
    assert seen == 0
    assert mean.shape == (1, 4)
    assert not jnp.any(covariance)


def test_a_batch_of_another_shape_is_refused():
    with pytest.raises(AssertionError, match="stream"):
        moments([np.zeros((5, 2, 4))], 2, 3)
