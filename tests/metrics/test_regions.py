import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from jaxad.metrics.regions import region_weights


@pytest.mark.parametrize("seed", range(5))
def test_weights_are_one_over_the_area_of_eight_connected_regions(seed):
    mask = np.random.default_rng(seed).random((37, 23)) < 0.25
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    areas = np.append(np.inf, np.bincount(labels.ravel())[1:])
    weights, regions = region_weights(mask)
    assert regions == count
    np.testing.assert_allclose(weights, np.where(mask, 1 / areas[labels], 0))


def test_diagonal_neighbors_are_one_region():
    assert region_weights(np.eye(5, dtype=bool))[1] == 1


@pytest.mark.parametrize("mask", [np.zeros((4, 6), bool), np.ones((4, 6), bool)], ids=["empty", "full"])
def test_empty_and_full_masks(mask):
    weights, regions = region_weights(mask)
    assert regions == int(mask.any())
    np.testing.assert_allclose(weights, mask / 24)


@pytest.mark.parametrize("seed", range(5))
def test_filled_weights_agree_with_skimage(seed):
    mask = np.random.default_rng(seed).random((30, 40)) < 0.5
    mask[5:20, 5:20] = True
    mask[8:16, 8:16] = False
    mask[11, 11] = True
    expected = np.zeros(mask.shape)
    for region in measure.regionprops(measure.label(mask, connectivity=2)):
        top, left, bottom, right = region.bbox
        expected[top:bottom, left:right] += region.image_filled / region.area
    np.testing.assert_allclose(region_weights(mask, filled=True)[0], expected)
