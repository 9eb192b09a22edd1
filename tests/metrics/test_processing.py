"""What the registered protocols do to maps and masks, against the definitions of the published code."""

import chex
import jax
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jaxad.errors import ProtocolError
from jaxad.metrics import protocol, protocol_names


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


@pytest.mark.parametrize("name", protocol_names())
def test_shapes_and_jit(name, maps):
    one = protocol(name)
    processed, scores = jax.jit(one.postprocess)(maps)
    chex.assert_shape([processed, scores], [(2, one.size, one.size), (2,)])
    chex.assert_type([processed, scores], np.float32)
    np.testing.assert_allclose(processed, one.process_map(maps), rtol=1e-5, atol=1e-6)
    if one.score_smoothed:
        np.testing.assert_allclose(scores, one.image_score(processed), rtol=1e-5)
    chex.assert_shape(one.resize_mask(np.eye(33, 70, dtype=bool)), (one.size, one.size))


@pytest.mark.parametrize(
    ("name", "size", "aligned", "sigma"),
    [("exact-256", 256, False, 4), ("exact-448", 448, False, 4), ("diad", 256, True, 5), ("ader", 256, True, 4)],
)
def test_maps_are_resized_then_smoothed_as_scipy_does(name, size, aligned, sigma, maps):
    expected = [ndimage.gaussian_filter(bilinear(m, size, aligned), sigma) for m in maps.astype(np.float64)]
    np.testing.assert_allclose(protocol(name).process_map(maps), expected, atol=1e-5)


def test_equation_24_has_no_smoothing(maps):
    processed, _ = protocol("dpdiff").postprocess(maps)
    np.testing.assert_allclose(processed, [bilinear(m, 448, False) for m in maps.astype(np.float64)], atol=1e-5)


@pytest.mark.parametrize("name", ["exact-256", "exact-448", "dpdiff", "ader"])
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
    for name in ("exact-256", "exact-448", "dpdiff"):
        size = protocol(name).size
        center = np.asarray(gray.resize((size, size), Image.Resampling.NEAREST)) > 0
        np.testing.assert_array_equal(protocol(name).resize_mask(mask), center)
    np.testing.assert_array_equal(protocol("diad").resize_mask(mask), shrunk > 0)
    np.testing.assert_array_equal(protocol("ader").resize_mask(mask), shrunk / 255 > 0.5)
    assert protocol("diad").resize_mask(mask).sum() > mask.mean() * 256**2 > protocol("ader").resize_mask(mask).sum()
    rows, columns = np.arange(400) * 1000 // 400, np.arange(400) * 700 // 400
    np.testing.assert_array_equal(protocol("winclip").resize_mask(mask), mask[np.ix_(rows, columns)])
    large = np.asarray(gray.resize((448, 448), Image.Resampling.BILINEAR))[28:420, 28:420] > 0
    index = np.arange(256) * 392 // 256
    np.testing.assert_array_equal(protocol("dinomaly").resize_mask(mask), large[np.ix_(index, index)])


@pytest.mark.parametrize("name", protocol_names())
def test_gray_values_of_masks_count_under_diad_alone(name):
    codes = np.zeros((1000, 700), np.uint8)
    codes[100:103, 50:300] = codes[600:800, 400:600] = 1
    of_codes, of_mask = (protocol(name).resize_mask(mask) for mask in (codes, codes > 0))
    assert np.array_equal(of_codes, of_mask) == (name != "diad")


def test_maps_and_masks_stay_in_register():
    mask = np.zeros((512, 512), bool)
    mask[300:400, 100:180] = True
    for one in map(protocol, protocol_names()):
        processed = np.asarray(one.process_map(mask[None].astype(np.float32)))[0]
        centers = [ndimage.center_of_mass(image) for image in (processed, one.resize_mask(mask))]
        np.testing.assert_allclose(*centers, atol=1.0)


def test_masks_of_another_type_are_refused():
    with pytest.raises(ProtocolError, match="must be bool"):
        protocol("exact-256").resize_mask(np.zeros((4, 4), np.float32))


def test_a_wrong_shape_is_named_with_its_argument():
    with pytest.raises(AssertionError, match=r"rank 2 .*maps must be \[b h w\]"):
        protocol("exact-256").process_map(np.zeros((4, 4), np.float32))
    with pytest.raises(AssertionError, match=r"maps must be \[b 256 256\]"):
        jax.eval_shape(protocol("exact-256").image_score, jax.ShapeDtypeStruct((2, 16, 16), np.float32))
