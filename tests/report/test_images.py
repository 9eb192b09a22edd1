"""Pictures of maps: fixed colors, known boxes, files of the right size that never replace an input."""

from __future__ import annotations

import chex
import numpy as np
import pytest
from PIL import Image

from jaxad.errors import JaxadError
from jaxad.inference.heat import FLAGGED, OUTLINE, contour, heat, overlay, own_heat
from jaxad.inference.maps import heat_scale
from jaxad.report.images import marked, panels, save_map, save_mask

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


def luminance(picture: np.ndarray) -> np.ndarray:
    return picture @ np.array([0.299, 0.587, 0.114])


def test_overlay_keeps_the_size_of_the_image_and_cold_parts_as_they_are():
    map = np.zeros((8, 12), np.float32)
    map[:, 9:] = 1.0
    picture = overlay(IMAGE, map, low=0.0, high=1.0)
    assert picture.shape == IMAGE.shape
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:, :30], IMAGE[:, :30])
    assert np.abs(picture[:, -5:].astype(int) - IMAGE[:, -5:]).mean() > 20


def test_alpha_is_reached_at_the_threshold():
    low, high = heat_scale(3.0, np.full(9, 1.0))
    at_threshold = overlay(IMAGE, np.full((4, 6), 3.0, np.float32), low=low, high=high, alpha=1.0)
    expected = heat(np.full(IMAGE.shape[:2], 3.0, np.float32), low=low, high=high)
    np.testing.assert_array_equal(at_threshold, expected)


def test_a_normal_image_stays_cold_whatever_its_own_maximum():
    draw = np.random.default_rng(2)
    normal = 1 + 1e-3 * np.abs(draw.normal(size=(5, 32, 32))).astype(np.float32)
    low, high = heat_scale(1.006, normal)
    quiet = luminance(heat(normal[0], low=low, high=high))
    defect = luminance(heat(np.full((2, 2), 1.012, np.float32), low=low, high=high))
    assert quiet.max() < 0.5 * defect.min()
    np.testing.assert_array_equal(overlay(IMAGE, np.full((2, 2), np.median(normal)), low=low, high=high), IMAGE)


@pytest.mark.parametrize(
    ("palette", "colors"),
    [
        ("inferno", {0: (0, 0, 4), 128: (188, 55, 84), 255: (252, 255, 164)}),
        ("viridis", {0: (68, 1, 84), 128: (33, 145, 140), 255: (253, 231, 37)}),
    ],
)
def test_palettes_are_the_known_ones_in_rgb(palette, colors):
    drawn = heat(np.arange(256, dtype=np.float32)[None], low=0, high=255, palette=palette)[0]
    chex.assert_shape(drawn, (256, 3))
    for level, color in colors.items():
        np.testing.assert_allclose(drawn[level], color, atol=1)


def test_colors_grow_brighter_with_the_value():
    ramp = luminance(heat(np.linspace(0, 1, 64, dtype=np.float32)[None], low=0, high=1))[0]
    assert (np.diff(ramp) > 0).all()


def test_a_map_on_its_own_scale_has_all_colors_and_a_constant_one_the_first():
    """The constant is so large that nothing small can be added to it."""
    map = np.array([[-3.0, 0.0], [1.0, 5.0]], np.float32)
    np.testing.assert_array_equal(own_heat(map, (2, 2)), heat(map, low=-3, high=5))
    np.testing.assert_array_equal(own_heat(map, (2, 2), "viridis"), heat(map, low=-3, high=5, palette="viridis"))
    assert own_heat(map, (6, 4)).shape == (6, 4, 3)
    constant = own_heat(np.full((2, 2), 1e5, np.float32), (2, 2))
    np.testing.assert_array_equal(constant, heat(np.zeros((2, 2)), low=0, high=1))


def test_contour_changes_only_the_border_of_a_copy():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 15:45] = 255
    before = IMAGE.copy()
    picture = contour(IMAGE, mask)
    np.testing.assert_array_equal(IMAGE, before)
    changed = (picture != IMAGE).any(2)
    assert changed[10, 15:45].all()
    assert not changed[14:26, 19:41].any()
    assert not changed[:8].any()


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((np.abs(picture.astype(int) - color).max(2) < 8).any())


def test_a_broken_contour_has_gaps_and_a_color_of_its_own():
    mask = np.zeros((200, 200), bool)
    mask[40:160, 40:160] = True
    black = np.zeros((200, 200, 3), np.uint8)
    whole, broken = contour(black, mask, color=FLAGGED), contour(black, mask, color=FLAGGED, broken=True)
    drawn, gaps = broken[40, 40:160].any(1), whole[40, 40:160].any(1)
    assert gaps.all()
    assert 0.3 < drawn.mean() < 0.7
    map = np.where(mask, 2.0, 0.0)
    both, true = marked(black, np.tri(200) > 0, map, 1.0, width=3), marked(black, mask, map, 3.0, width=3)
    assert has(both, OUTLINE)
    assert has(both, FLAGGED)
    assert not has(true, FLAGGED)


def test_panels_have_one_size_and_no_mask_where_there_is_none():
    map, mask = np.random.default_rng(0).random((16, 16)), np.eye(80)
    pictures = panels(IMAGE, mask, map, low=0, high=1, side=30)
    assert list(pictures) == ["input", "mask", "map", "overlay"]
    assert {picture.shape for picture in pictures.values()} == {(20, 30, 3)}
    assert set(np.unique(pictures["mask"])) == {0, 255}
    assert "mask" not in panels(IMAGE, None, map, low=0, high=1)


def test_maps_come_back_exactly(tmp_path):
    map = np.random.default_rng(3).normal(1, 1e-3, (17, 23)).astype(np.float32)
    np.testing.assert_array_equal(np.load(save_map(tmp_path / "deep" / "a.npy", map)), map)
    with Image.open(save_map(tmp_path / "a.tiff", map)) as file:
        assert file.mode == "F"
        np.testing.assert_array_equal(np.asarray(file), map)


def test_masks_are_black_and_white_at_their_own_size(tmp_path):
    mask = np.zeros((17, 23), bool)
    mask[3:6, 4:9] = True
    with Image.open(save_mask(tmp_path / "m.png", mask)) as file:
        assert file.mode == "L"
        np.testing.assert_array_equal(np.asarray(file), mask * 255)


@pytest.mark.parametrize(
    ("save", "name"),
    [
        (lambda p: save_map(p, IMAGE[..., 0]), "a.png"),
        (lambda p: save_mask(p, IMAGE[..., 0]), "a.jpg"),
    ],
)
def test_other_extensions_are_refused(tmp_path, save, name):
    with pytest.raises(JaxadError, match="saved as"):
        save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []
