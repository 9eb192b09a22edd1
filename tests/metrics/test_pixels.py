import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxad.metrics.curves import aupro, auroc, average_precision, f1_max
from jaxad.metrics.pixels import PixelScores
from tests import oracles
from tests.metrics import cases


def collect(maps, masks, batch=3, **settings):
    pixels = PixelScores(**settings)
    for start in range(0, len(maps), batch):
        pixels.add(maps[start : start + batch], list(masks[start : start + batch]))
    return pixels


def measure(pixels):
    return {
        "pixel_auroc": pixels.measure(auroc),
        "pixel_ap": pixels.measure(average_precision),
        "pixel_f1max": pixels.measure(f1_max),
        "aupro": pixels.measure_regions(aupro),
    }


@pytest.mark.parametrize("name", cases.NAMES)
def test_metrics_agree_with_the_exact_oracles(name):
    masks = cases.masks(24)
    maps = cases.maps(name, masks)
    expected = oracles.pixel_metrics(maps, masks)
    for metric, (value, bound) in measure(collect(maps, masks)).items():
        assert value == pytest.approx(expected[metric], abs=1e-5), metric
        assert abs(value - expected[metric]) <= bound + 1e-12, metric
        assert bound < 1e-4


@pytest.mark.parametrize("name", cases.NAMES)
def test_bounds_hold_where_bins_are_coarse(name):
    masks = cases.masks(10)
    maps = cases.maps(name, masks)
    expected = oracles.pixel_metrics(maps, masks)
    pixels = collect(maps, masks, resolution=16)
    if name not in ("constant", "tied", "eight bits", "offset 1 + 1e-6 z"):
        assert measure(pixels)["pixel_auroc"].bound > 1e-4
    for metric, (value, bound) in measure(pixels).items():
        assert abs(value - expected[metric]) <= bound + 1e-12, metric


few = st.integers(-3, 3).map(float) | st.floats(-2, 2, width=32)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(few, st.booleans()), min_size=60, max_size=60), st.integers(1, 4))
def test_bounds_hold_for_any_few_scores(pairs, resolution):
    maps = np.array([score for score, _ in pairs], np.float32).reshape(3, 4, 5)
    masks = np.array([label for _, label in pairs]).reshape(3, 4, 5)
    masks[0, 0, :2] = True, False
    pixels = collect(maps, masks, batch=1, resolution=resolution)
    for histogram in (pixels.normal, pixels.anomalous, pixels.weights):
        histogram._compact()
    expected = oracles.pixel_metrics(maps, masks)
    for metric, (value, bound) in measure(pixels).items():
        assert abs(value - expected[metric]) <= bound + 1e-9, metric


@pytest.mark.parametrize("change", [lambda s: 3 * s + 1, np.tanh, lambda s: s**3], ids=["affine", "tanh", "cube"])
def test_metrics_do_not_change_under_increasing_maps_of_the_scores(change):
    masks = cases.masks(8)
    maps = np.round(cases.maps("normal", masks), 2)
    before, after = measure(collect(maps, masks)), measure(collect(change(maps).astype(np.float32), masks))
    for metric in before:
        assert before[metric].value == pytest.approx(after[metric].value, abs=1e-6)


def test_merging_equals_one_pass_in_any_order():
    masks = cases.masks(12)
    maps = cases.maps("heavy-tailed", masks)
    whole = measure(collect(maps, masks))
    parts = [collect(maps[i::3], masks[i::3], batch=1) for i in range(3)]
    merged = [
        parts[0].merge(parts[1]).merge(parts[2]),
        parts[0].merge(parts[1].merge(parts[2])),
        parts[2].merge(parts[0]).merge(parts[1]),
        collect(maps[::-1], masks[::-1], batch=5),
    ]
    for other in merged:
        assert other.regions == collect(maps, masks).regions
        for metric, (value, bound) in measure(other).items():
            assert abs(value - whole[metric].value) <= bound + whole[metric].bound + 1e-12
            assert value == pytest.approx(whole[metric].value, abs=1e-5)
    for metric, (value, _) in measure(merged[0]).items():
        assert value == pytest.approx(measure(merged[1])[metric].value, abs=1e-14)


def test_overlap_with_filled_holes_may_exceed_1():
    """By the loop over all thresholds and regions; without a scale it would end at 1."""
    masks = cases.masks(2, side=24)
    masks[0] = False
    masks[0, 4:18, 4:18] = True
    masks[0, 8:14, 8:14] = False
    maps = np.round(3 * cases.maps("normal", masks))
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        points.append(oracles.overlap_filled(maps, masks, threshold - 0.5))
    fpr, pro = np.array(points).T
    assert pro[-1] > 1
    below = fpr < 0.3
    ends = np.interp(0.3, [fpr[below][-1], fpr[~below][0]], [pro[below][-1], pro[~below][0]])
    expected = np.trapezoid(np.append(pro[below], ends), np.append(fpr[below], 0.3)) / 0.3
    found = collect(maps.astype(np.float32), masks, filled_regions=True).measure_regions(aupro)
    assert found.value == pytest.approx(expected, abs=1e-9)


def test_perfect_and_inverted_maps():
    masks = cases.masks(6)
    noise = np.random.default_rng(0).random(masks.shape).astype(np.float32)
    for value, _ in measure(collect(masks + noise, masks)).values():
        assert value == pytest.approx(1, abs=1e-6)
    inverted = measure(collect(-(masks + noise), masks))
    assert inverted["pixel_auroc"].value == pytest.approx(0, abs=1e-6)
    assert inverted["aupro"].value == pytest.approx(0, abs=1e-6)
    assert inverted["pixel_ap"].value < masks.mean()


def test_constant_map_is_chance():
    masks = cases.masks(4)
    measures = measure(collect(np.full(masks.shape, 0.25, np.float32), masks))
    assert measures["pixel_auroc"] == (0.5, 0)
    assert measures["pixel_ap"].value == pytest.approx(masks.mean(), abs=1e-12)
    assert measures["aupro"].value == pytest.approx(0.15, abs=1e-12)


def test_arrays_round_trip():
    masks = cases.masks(4)
    pixels = collect(cases.maps("normal", masks), masks)
    back = PixelScores.from_arrays(pixels.to_arrays())
    assert measure(back) == measure(pixels)
