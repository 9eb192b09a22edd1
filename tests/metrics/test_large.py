"""Maps of any size, as tiles make them: smoothing, image scores and reduction are those of the protocol's own map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from jaxad.metrics import large, protocol, protocol_names


def draw(*shape, seed=2):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


@pytest.mark.parametrize("name", protocol_names())
def test_smoothing_and_scores_are_those_of_the_compiled_protocol(name):
    """With maps of the protocol's own size, which it does not resize."""
    wanted = protocol(name)
    map = draw(wanted.size, wanted.size)
    if wanted.canvas is None:
        np.testing.assert_allclose(large.smoothed(wanted, map), wanted.process_map(map[None])[0], atol=1e-5)
    np.testing.assert_allclose(large.image_score(wanted, map), wanted.image_score(map[None])[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["exact-256", "diad"])
def test_windows_of_the_score_lie_in_the_map(name):
    """What is brightest at the edge counts with all of the window's pixels, and once."""
    wanted = protocol(name)
    map = np.zeros((90, 120), np.float32)
    map[-1, -1] = map[:, -2:][20:30] = 1
    expected = map.astype(np.float64)
    for _ in range(wanted.pool_repeats):
        expected = np.lib.stride_tricks.sliding_window_view(expected, (wanted.pool, wanted.pool)).mean(axis=(2, 3))
    assert large.image_score(wanted, map) == pytest.approx(expected.max(), rel=1e-4)


def test_the_highest_pixels_are_as_many_as_in_one_tile():
    wanted, map = protocol("dinomaly"), draw(512, 300)
    assert large.image_score(wanted, map) == pytest.approx(np.sort(map, axis=None)[-655:].mean(), rel=1e-5)
    few = draw(20, 30)
    assert large.image_score(wanted, few) == pytest.approx(few.mean(), rel=1e-5)


def test_larger_maps_are_reduced_to_means_and_smaller_ones_interpolated():
    wanted, map = dataclasses.replace(protocol("exact-256"), size=8), draw(16, 24)
    np.testing.assert_allclose(large.reduced(wanted, map), map.reshape(8, 2, 8, 3).mean((1, 3)), rtol=1e-5)
    ramp = np.arange(4, dtype=np.float32)
    grown = np.interp(np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3), ramp, ramp)
    np.testing.assert_allclose(large.reduced(wanted, np.tile(ramp, (4, 1))), np.tile(grown, (8, 1)), atol=1e-6)


def test_pixels_of_a_region_count_for_each_other_alone():
    wanted, map = protocol("exact-256"), draw(60, 50)
    inside = np.zeros(map.shape, bool)
    inside[10:40, 5:30] = True
    sums, share = (ndimage.gaussian_filter(x.astype(np.float64), 4) for x in (np.where(inside, map, 0), inside))
    found = large.smoothed(wanted, map, inside)
    np.testing.assert_allclose(found[inside], (sums / np.where(inside, share, 1))[inside], rtol=1e-4)
    assert (found[~inside] == found[inside].min()).all()
    np.testing.assert_allclose(large.smoothed(wanted, np.where(inside, map, 9), inside), found, rtol=1e-5)
