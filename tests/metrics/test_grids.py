import numpy as np
import pytest

from jaxad.metrics.grids import _above, aupro_grid, f1_grid
from jaxad.metrics.pixels import PixelScores
from jaxad.metrics.rules import AuproGrid
from tests import oracles
from tests.metrics import cases
from tests.metrics.test_pixels import collect

SCORES = ("normal", "offset 0.5 + 0.01 z", "tied", "saturated")
DIAD, ADER = AuproGrid(50), AuproGrid(30, rescale="range")
WINCLIP = AuproGrid(50, from_top=True, at_limit=True, rescale="range")


@pytest.fixture(params=SCORES)
def maps_and_masks(request):
    masks = cases.masks(8, side=48)
    masks[0, 10:20, 10:20] = True
    masks[0, 13:16, 13:16] = False
    maps = np.stack([np.roll(m, 1) * 0.3 + m for m in cases.maps(request.param, masks)])
    return maps.astype(np.float32), masks


@pytest.mark.parametrize("resolution", [1 << 13, 64])
def test_aupro_of_a_grid_agrees_with_the_loop_over_thresholds_and_regions(maps_and_masks, resolution):
    maps, masks = maps_and_masks
    for filled, grid, expected in (
        (False, DIAD, oracles.aupro_diad(maps, masks, 50)),
        (False, ADER, oracles.aupro_ader(maps, masks, 30)),
        (True, WINCLIP, oracles.aupro_winclip(maps, masks, 50)),
    ):
        measure = aupro_grid(collect(maps, masks, filled_regions=filled, resolution=resolution), grid)
        assert measure is not None
        assert abs(measure.value - expected) <= measure.bound + 1e-9
        if resolution > 64:
            assert measure.value == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("resolution", [1 << 13, 64])
def test_f1_of_a_grid_agrees_with_the_loop_over_thresholds(maps_and_masks, resolution):
    maps, masks = maps_and_masks
    measure = f1_grid(collect(maps, masks, resolution=resolution), 21)
    assert measure is not None
    assert abs(measure.value - oracles.f1_ader(maps, masks)) <= measure.bound + 1e-7
    if resolution > 64:
        assert measure.bound < 1e-4


def test_a_threshold_divides_a_cell_as_its_range():
    scores = np.random.default_rng(0).random((100, 1, 40)).astype(np.float32)
    pixels = PixelScores(resolution=16)
    for map in scores:
        pixels.add(map[None], [None])
    for thresholds in (np.linspace(0.05, 0.75, 41), np.linspace(0.75, 0.05, 41)):
        exact = (scores.ravel() > thresholds[:, None]).sum(axis=1)
        least, likely, most = _above(pixels.normal, thresholds)
        assert (least <= exact).all()
        assert (exact <= most).all()
        assert np.abs(likely - exact).max() < 0.5 * np.abs((least + most) / 2 - exact).max()


def test_scores_equal_to_a_threshold_are_not_above_it():
    """Whole numbers from 0 to 20 at 20 and 21 thresholds, which are whole numbers too."""
    random = np.random.default_rng(0)
    masks = random.random((4, 12, 12)) < 0.3
    maps = np.clip(np.round(random.normal(8, 3, masks.shape) + 6 * masks), 1, 19).astype(np.float32)
    maps[0, 0, :2] = 0, 20
    pixels = collect(maps, masks)
    assert f1_grid(pixels, 21) == pytest.approx((oracles.f1_ader(maps, masks), 0), abs=1e-7)
    assert aupro_grid(pixels, AuproGrid(20)) == pytest.approx((oracles.aupro_diad(maps, masks, 20), 0), abs=1e-9)


@pytest.mark.parametrize("at_limit", [True, False])
def test_a_threshold_at_the_limit_itself_counts_where_it_is_told_to(at_limit):
    """Ten normal pixels, of which three are above the threshold."""
    maps = np.float32([[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 9, 10]]])
    masks = np.arange(13).reshape(maps.shape) >= 10
    grid = AuproGrid(10, from_top=True, at_limit=at_limit, rescale="range")
    measure = aupro_grid(collect(maps, masks), grid)
    kept = [oracles.overlap(maps, masks, 10 - step) for step in range(10)]
    assert 0.3 in [fpr for fpr, _ in kept]
    fpr, pro = np.array([point for point in kept if point[0] < 0.3 or (at_limit and point[0] == 0.3)]).T
    assert measure is not None
    assert measure.value == pytest.approx(np.trapezoid(pro, fpr) / fpr.max(), abs=1e-9)


def test_constant_maps_have_no_grid():
    masks = cases.masks(2)
    pixels = collect(np.ones(masks.shape, np.float32), masks)
    assert f1_grid(pixels, 21) is None
    assert aupro_grid(pixels, DIAD) is None


def test_no_threshold_in_reach_of_the_limit_is_undefined():
    masks = cases.masks(4)
    maps = cases.maps("negative", masks)
    assert oracles.overlap(maps, masks, float(maps.max()) * 1.01 - 0.01 * abs(float(maps.min())))[0] > 0.3
    assert aupro_grid(collect(maps, masks), AuproGrid(10)) is None


def test_a_threshold_that_may_cross_the_limit_widens_the_bound():
    random = np.random.default_rng(0)
    masks = np.zeros((1, 40, 40), bool)
    masks[0, :4, :4] = True
    maps = random.random((1, 40, 40)).astype(np.float32)
    fine, coarse = (aupro_grid(collect(maps, masks, resolution=r), AuproGrid(10)) for r in (1 << 13, 4))
    assert fine is not None
    assert coarse is not None
    assert abs(coarse.value - fine.value) <= coarse.bound + 1e-12
