"""Anomaly maps: their scale of colors, their hottest region, their size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxad.inference.maps import defect_box, fit_map, heat_scale, image_map


def test_box_encloses_the_region_of_the_hottest_pixel():
    map = np.zeros((20, 30), np.float32)
    map[2:5, 3:9] = 2.0  # larger, but not the hottest
    map[10:14, 20:27] = 1.5
    map[12, 22] = 3.0
    assert defect_box(map, 1.0) == (20, 10, 27, 14)
    assert defect_box(map, 2.5) == (22, 12, 23, 13)


def test_box_joins_diagonal_neighbors_and_lies_around_what_is_hottest_where_nothing_passes_the_limit():
    map = np.eye(6, dtype=np.float32)
    assert defect_box(map, 0.5) == (0, 0, 6, 6)
    map[:5, :5] *= 0.5
    assert defect_box(map, 10.0) == (5, 5, 6, 6)
    assert defect_box(0 * map, 10.0) is None


def test_what_lies_outside_of_the_region_is_cut_from_the_map_at_the_size_of_the_image():
    map, inside = np.array([[0.0, 4.0]]), np.array([[True, False]])
    np.testing.assert_allclose(image_map(map, (1, 4), inside, 0.5), [[0, 1, 0, 0]])
    np.testing.assert_allclose(image_map(map, (1, 4)), [[0, 1, 3, 4]])


@given(offset=st.floats(-100, 100), spread=st.floats(1e-3, 1e3))
def test_scale_puts_normal_median_at_the_cold_end_and_threshold_in_the_middle(offset, spread):
    normal = offset + spread * np.random.default_rng(1).normal(size=500)
    threshold = offset + 4 * spread
    low, high = heat_scale(threshold, normal)
    assert low == pytest.approx(np.median(normal))
    assert (low + high) / 2 == pytest.approx(threshold)
    assert heat_scale(None, normal)[1] == pytest.approx(2 * np.quantile(normal, 0.995) - low)


def test_a_threshold_below_0_falls_on_the_middle_of_the_colors_too():
    assert heat_scale(-0.5) == (-1.0, 0.0)
    assert heat_scale(0.5) == (0.0, 1.0)


def test_scale_of_constant_maps_has_a_width():
    low, high = heat_scale(1.0, np.ones(10))
    assert low < high


@pytest.mark.parametrize("arguments", [(None, None), (1.0, np.array([])), (1.0, np.array([1.0, np.nan]))])
def test_scale_refuses_what_it_cannot_use(arguments):
    with pytest.raises(ValueError, match="heat_scale"):
        heat_scale(*arguments)


def test_fit_uses_half_pixel_centers():
    fitted = fit_map(np.array([[0.0, 1.0]]), (1, 4))
    np.testing.assert_allclose(fitted, [[0.0, 0.25, 0.75, 1.0]])


@pytest.mark.parametrize("map", [np.full((3, 3), np.nan), np.zeros((2, 3, 3)), np.zeros((0, 3))])
def test_maps_that_are_not_finite_or_not_maps_are_refused(map):
    with pytest.raises(ValueError, match="must be"):
        defect_box(map, 0.5)
