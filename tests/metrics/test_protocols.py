import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxad.errors import ProtocolError
from jaxad.metrics import PROTOCOLS, Protocol, protocol
from jaxad.metrics.grids import AuproGrid
from tests import oracles
from tests.metrics import cases


def pooled(map, window):
    return np.lib.stride_tricks.sliding_window_view(map, (window, window)).mean(axis=(2, 3))


def bilinear(map, size, align_corners):
    """By the definition, sample for sample."""

    def along(values):
        index = np.arange(size)
        n = len(values)
        position = index * (n - 1) / (size - 1) if align_corners else np.clip((index + 0.5) * n / size - 0.5, 0, n - 1)
        return np.interp(position, np.arange(n), values)

    return np.apply_along_axis(along, 1, np.apply_along_axis(along, 0, map))


@pytest.fixture(scope="module")
def maps():
    return np.random.default_rng(0).random((2, 16, 20)).astype(np.float32) ** 3


def test_names_and_descriptions():
    assert list(PROTOCOLS) == ["exact-256", "exact-448", "diad", "ader", "dinomaly", "winclip"]
    for name, one in PROTOCOLS.items():
        assert protocol(name) is one
        assert one.name == name
        assert one.description
        assert "\n" not in one.description
    with pytest.raises(ProtocolError, match="there are exact-256, exact-448, diad"):
        protocol("exact-512")
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol("diad").size = 3


@pytest.mark.parametrize("name", PROTOCOLS)
def test_shapes_and_jit(name, maps):
    one = protocol(name)
    processed, scores = jax.jit(one.postprocess)(maps)
    assert processed.shape == (2, one.size, one.size)
    assert processed.dtype == np.float32
    assert scores.shape == (2,)
    np.testing.assert_allclose(processed, one.process_map(maps), rtol=1e-5, atol=1e-6)
    if one.score_smoothed:
        np.testing.assert_allclose(scores, one.image_score(processed), rtol=1e-5)
    assert one.resize_mask(np.eye(33, 70, dtype=bool)).shape == (one.size, one.size)


@pytest.mark.parametrize(
    ("name", "size", "aligned", "sigma"),
    [("exact-256", 256, False, 4), ("exact-448", 448, False, 4), ("diad", 256, True, 5), ("ader", 256, True, 4)],
)
def test_maps_are_resized_then_smoothed_as_scipy_does(name, size, aligned, sigma, maps):
    expected = [ndimage.gaussian_filter(bilinear(m, size, aligned), sigma) for m in maps.astype(np.float64)]
    np.testing.assert_allclose(protocol(name).process_map(maps), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["exact-256", "exact-448", "ader"])
def test_score_is_the_maximum_of_sixteen_by_sixteen_means(name, maps):
    processed, scores = protocol(name).postprocess(maps)
    np.testing.assert_allclose(scores, [pooled(m, 16).max() for m in np.asarray(processed)], rtol=1e-5)


def test_diad_pools_eight_times(maps):
    processed, scores = protocol("diad").postprocess(maps)
    for map, score in zip(np.asarray(processed, np.float64), scores, strict=True):
        for _ in range(8):
            map = pooled(map, 8)
        assert map.shape == (200, 200)
        assert score == pytest.approx(map.max(), rel=1e-5)


def test_dinomaly_crops_shrinks_blurs_and_scores_the_top_percent(maps):
    processed, scores = protocol("dinomaly").postprocess(maps)
    kernel = np.exp(-0.5 * (np.arange(-2, 3) / 4.0) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    for index, map in enumerate(maps.astype(np.float64)):
        small = bilinear(bilinear(map, 448, True)[28:420, 28:420], 256, False)
        expected = ndimage.convolve(small, kernel, mode="constant")
        np.testing.assert_allclose(processed[index], expected, atol=1e-5)
        assert scores[index] == pytest.approx(np.sort(expected.ravel())[-655:].mean(), rel=1e-5)


def test_winclip_scores_the_unsmoothed_map(maps):
    processed, scores = protocol("winclip").postprocess(maps)
    resized = np.array([bilinear(m, 400, False) for m in maps.astype(np.float64)])
    np.testing.assert_allclose(processed, [ndimage.gaussian_filter(m, 4) for m in resized], atol=1e-5)
    np.testing.assert_allclose(scores, resized.max(axis=(1, 2)), rtol=1e-5)


def test_masks():
    mask = np.zeros((1000, 700), bool)
    mask[100:103, 50:300] = True
    mask[600:800, 400:600] = True
    gray = Image.fromarray(mask.astype(np.uint8) * 255)
    shrunk = np.asarray(gray.resize((256, 256), Image.Resampling.BILINEAR))
    center = np.asarray(gray.resize((256, 256), Image.Resampling.NEAREST)) > 0
    np.testing.assert_array_equal(protocol("exact-256").resize_mask(mask), center)
    np.testing.assert_array_equal(protocol("diad").resize_mask(mask), shrunk > 0)
    np.testing.assert_array_equal(protocol("ader").resize_mask(mask), shrunk / 255 > 0.5)
    assert protocol("diad").resize_mask(mask).sum() > mask.mean() * 256**2 > protocol("ader").resize_mask(mask).sum()
    rows, columns = np.arange(400) * 1000 // 400, np.arange(400) * 700 // 400
    np.testing.assert_array_equal(protocol("winclip").resize_mask(mask), mask[np.ix_(rows, columns)])
    large = np.asarray(gray.resize((448, 448), Image.Resampling.BILINEAR))[28:420, 28:420] > 0
    index = np.arange(256) * 392 // 256
    np.testing.assert_array_equal(protocol("dinomaly").resize_mask(mask), large[np.ix_(index, index)])


def test_maps_and_masks_stay_in_register():
    mask = np.zeros((512, 512), bool)
    mask[300:400, 100:180] = True
    for one in PROTOCOLS.values():
        map = np.asarray(one.process_map(mask[None].astype(np.float32)))[0]
        centers = [ndimage.center_of_mass(image) for image in (map, one.resize_mask(mask))]
        np.testing.assert_allclose(*centers, atol=1.0)


def test_a_tiny_defect_makes_the_image_normal_under_ader_only():
    mask = np.zeros((1024, 1024), bool)
    mask[500, 500:502] = True
    labels = {name: one.image_label(1, one.resize_mask(mask)) for name, one in PROTOCOLS.items()}
    assert labels == dict.fromkeys(PROTOCOLS, 1) | {"ader": 0}
    assert protocol("ader").image_label(1, None) == 1


def test_wrong_inputs_are_refused():
    with pytest.raises(ProtocolError, match="must be bool"):
        protocol("exact-256").resize_mask(np.zeros((4, 4), np.uint8))
    with pytest.raises(ProtocolError, match=r"must be \[b h w\]"):
        protocol("exact-256").process_map(np.zeros((4, 4), np.float32))


def small(name: str, steps: int) -> Protocol:
    """A protocol with a coarser grid, so that the loops of the oracles end soon."""
    one = protocol(name)
    grid = one.rules.aupro_grid or AuproGrid(steps)
    return dataclasses.replace(
        one, rules=dataclasses.replace(one.rules, aupro_grid=dataclasses.replace(grid, steps=steps))
    )


@pytest.mark.parametrize(
    ("name", "aupro"),
    [
        ("diad", oracles.aupro_diad),
        ("dinomaly", oracles.aupro_diad),
        ("ader", oracles.aupro_ader),
        ("winclip", oracles.aupro_winclip),
    ],
)
def test_metrics_of_published_protocols_agree_with_slow_oracles(name, aupro):
    masks = cases.masks(6, side=64)
    maps = np.stack([ndimage.gaussian_filter(m, 2) for m in cases.maps("normal", masks)])
    labels = masks.any(axis=(1, 2)).astype(int)
    metrics = small(name, 40).class_metrics()
    metrics.update(maps.max(axis=(1, 2)), labels, maps, masks)
    result, exact = metrics.result(), oracles.pixel_metrics(maps, masks)
    assert result["aupro"] == pytest.approx(aupro(maps, masks, 40), abs=1e-4)
    assert result["pixel_f1max"] == pytest.approx(
        oracles.f1_ader(maps, masks) if name == "ader" else exact["pixel_f1max"], abs=1e-4
    )
    assert result["pixel_auroc"] == pytest.approx(exact["pixel_auroc"], abs=1e-4)
    assert result["pixel_ap"] == pytest.approx(exact["pixel_ap"], abs=1e-4)


def test_grids_have_the_published_number_of_thresholds():
    steps = {name: one.rules.aupro_grid and one.rules.aupro_grid.steps for name, one in PROTOCOLS.items()}
    assert steps == {
        "exact-256": None,
        "exact-448": None,
        "diad": 200,
        "ader": 100,
        "dinomaly": 200,
        "winclip": 200,
    }
