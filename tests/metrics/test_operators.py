"""Matrices that resize, crop, smooth and pool, against scipy, jax and definitions."""

import numpy as np
import pytest
from scipy import ndimage

from jaxad.metrics import operators


@pytest.mark.parametrize(("size", "sigma"), [(256, 4.0), (64, 5.0), (9, 4.0), (1, 2.0)])
def test_gaussian_is_scipys(size, sigma):
    map = np.random.default_rng(0).standard_normal((size, 48)).astype(np.float32)
    rows = operators.gaussian(size, sigma, int(4 * sigma + 0.5), "reflect")
    columns = operators.gaussian(48, sigma, int(4 * sigma + 0.5), "reflect")
    smoothed = operators.separable(rows, columns, map[None])[0]
    np.testing.assert_allclose(smoothed, ndimage.gaussian_filter(map, sigma), atol=1e-5)


def test_zero_padded_gaussian_is_a_convolution():
    map = np.random.default_rng(0).standard_normal((20, 20))
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 4.0) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    matrix = operators.gaussian(20, 4.0, 2, "zero")
    np.testing.assert_allclose(matrix @ map @ matrix.T, ndimage.convolve(map, kernel, mode="constant"), atol=1e-12)


def test_crop_keeps_the_center():
    np.testing.assert_array_equal(operators.crop(448, 392) @ np.arange(448), np.arange(28, 420))


@pytest.mark.parametrize("repeats", [1, 3])
def test_average_pool_is_a_sliding_mean(repeats):
    expected = values = np.random.default_rng(0).standard_normal(40)
    for _ in range(repeats):
        expected = np.lib.stride_tricks.sliding_window_view(expected, 8).mean(axis=1)
    np.testing.assert_allclose(operators.average_pool(40, 8, repeats) @ values, expected, atol=1e-12)


def test_matrices_that_do_not_fit_the_maps_are_named():
    maps = np.zeros((2, 4, 6))
    for rows, columns, given, message in (
        (np.eye(5), np.eye(6), maps, "rows must be"),
        (np.eye(4), np.eye(5), maps, "columns must be"),
        (np.eye(4), np.eye(6), maps[0], "maps must be"),
    ):
        with pytest.raises(AssertionError, match=message):
            operators.separable(rows, columns, given)
