import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.detectors.clipfusion import maps as maps
from jaxad.detectors.clipfusion.mapdiff import chunked


def draw(*shape):
    return np.random.default_rng(0).random(shape).astype(np.float32)


def test_abnormality_is_the_softmax_over_both_prompts():
    texts = draw(1, 2, 5)
    texts /= np.linalg.norm(texts, axis=-1, keepdims=True)
    x = draw(1, 3, 5) - 0.5
    logits = 7 * (x[0] / np.linalg.norm(x[0], axis=-1, keepdims=True)) @ texts[0].T
    expected = np.exp(logits[:, 1]) / np.exp(logits).sum(-1)
    np.testing.assert_allclose(maps.abnormality(x, texts, jnp.float32(7))[0], expected, rtol=1e-5)


def test_harmonic_mean_over_the_windows_that_hold_a_patch():
    grid, side, scores = (3, 4), 2, draw(1, 6) + 0.1
    windows = maps.window_patches(grid, side)
    assert windows[0].tolist() == [0, 1, 4, 5]
    expected = [1 / np.mean([1 / scores[0, w] for w in range(6) if patch in windows[w]]) for patch in range(12)]
    np.testing.assert_allclose(maps.harmonic_patches(scores, grid, side)[0], expected, rtol=1e-5)


def test_concentration_is_that_of_equation_10_and_free_of_scale():
    found = draw(2, 4, 4)
    expected = 1 - np.median(found, axis=(1, 2)) / found.max((1, 2))
    np.testing.assert_allclose(maps.concentration(found), expected, rtol=1e-5)
    np.testing.assert_allclose(maps.concentration(1e-3 * found), expected, rtol=1e-4)


def test_scales_of_attention():
    found = draw(2, 3, 3) + 1
    scaled = np.asarray(maps.normalized(found, "minmax"))
    np.testing.assert_allclose(scaled.min((1, 2)), 0)
    np.testing.assert_allclose(scaled.max((1, 2)), 1, rtol=1e-6)
    np.testing.assert_allclose(maps.normalized(found, "max").max((1, 2)), 1, rtol=1e-6)
    np.testing.assert_array_equal(maps.normalized(found, "none"), found)
    np.testing.assert_array_equal(maps.normalized(np.ones((1, 2, 2)), "minmax"), 0)


@pytest.mark.parametrize("subtokens", ["mean", "max", "last"])
def test_attention_to_a_state_of_one_and_of_two_tokens(subtokens):
    sites = {"a": draw(2, 4, 4, 6), "b": draw(2, 2, 2, 6) / 2}
    places, used = np.array([[3, 3], [1, 2]]), np.array([[True, False], [True, True]])
    plain, again = maps.state_attention(sites, places, used, (4, 4), subtokens, "resoftmax")
    mean = (sites["a"] + np.stack([np.asarray(maps.resize(sites["b"][..., k], (4, 4))) for k in range(6)], -1)) / 2
    np.testing.assert_allclose(plain[0], mean[0, ..., 3], rtol=1e-5)
    two = mean[1, ..., 1:3]
    expected = {"mean": two.mean(-1), "max": two.max(-1), "last": two[..., 1]}[subtokens]
    np.testing.assert_allclose(plain[1], expected, rtol=1e-5)
    # Attend-and-Excite: without the first token, times 100, softmax over what is left.
    shares = np.exp(100 * (mean[0, ..., 1:] - mean[0, ..., 1:].max(-1, keepdims=True)))
    np.testing.assert_allclose(again[0], (shares / shares.sum(-1, keepdims=True))[..., 2], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("norm", ["minmax", "max"])
def test_scale_of_each_state_and_of_each_site(norm):
    sites = {"a": draw(2, 4, 4, 6), "b": draw(2, 4, 4, 6) / 50}
    places, used = np.array([[3], [1]]), np.ones((2, 1), bool)

    def scaled(map):
        return (map - map.min()) / np.ptp(map) if norm == "minmax" else map / map.max()

    for row, place in enumerate((3, 1)):
        a, b = (site[row, ..., place] for site in sites.values())
        expected = {"mean": None, "states": scaled((a + b) / 2), "sites": (scaled(a) + scaled(b)) / 2}
        for of, map in expected.items():
            plain, found = maps.state_attention(sites, places, used, (4, 4), "mean", norm, of)
            np.testing.assert_allclose(plain[row], (a + b) / 2, rtol=1e-5)
            if map is None:
                assert found is None
            else:
                np.testing.assert_allclose(found[row], map, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(7, 9), (2, 3)])
def test_maps_are_resized_with_half_pixel_centers(size):
    found, expected = draw(2, 4, 5), []
    for map in found:
        for axis, new in enumerate(size):
            old = np.arange(map.shape[axis])
            places = np.clip((np.arange(new) + 0.5) * len(old) / new - 0.5, 0, len(old) - 1)
            map = np.apply_along_axis(lambda values, at=places, of=old: np.interp(at, of, values), axis, map)
        expected.append(map)
    np.testing.assert_allclose(maps.resize(found, size), expected, rtol=1e-5)
    channels = np.stack([found, 1 - found], axis=-1)
    np.testing.assert_allclose(maps._resize_channels(jnp.asarray(channels), size)[..., 0], expected, rtol=1e-5)


def test_fusion():
    terms = {
        "clip": {"language": np.float32([1]), "vision": np.float32([3])},
        "diffusion": {"language": np.float32([2])},
    }
    np.testing.assert_allclose(maps.fuse(terms, 0.25, "sum"), 0.25 * 4 + 0.75 * 2)
    np.testing.assert_allclose(maps.fuse(terms, 0.25, "harmonic"), 0.25 * 1.5 + 0.75 * 2)
    np.testing.assert_allclose(maps.fuse({"clip": terms["clip"]}, 0.25, "sum"), 4)


def test_distance_to_several_references_is_the_least():
    tokens, banks, which = draw(1, 4, 5) - 0.5, 1 - draw(1, 12, 5), jnp.zeros(1, int)
    each = [maps.reference_distance(tokens, bank, which, 2) for bank in np.split(banks, 3, axis=1)]
    np.testing.assert_allclose(maps.reference_distance(tokens, banks, which, 5), np.min(each, axis=0), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_chunks_change_nothing(size):
    rows = {"x": jnp.arange(14.0).reshape(7, 2), "y": jnp.arange(7)}
    found = chunked(lambda row: {"z": [row["x"].sum(-1) + row["y"]]}, rows, size)
    np.testing.assert_array_equal(found["z"][0], rows["x"].sum(-1) + rows["y"])
