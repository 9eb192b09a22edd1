"""Drawn defects and their masks."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation, label

from jaxad.data.demo.defects import DEFECTS, draw_defect

BUMPY = np.random.default_rng(0).integers(60, 160, (96, 96), dtype=np.uint8)
OTHER = np.random.default_rng(1).integers(150, 250, (96, 96), dtype=np.uint8)


@pytest.mark.parametrize("kind", DEFECTS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
@example(seed=1661)  # A crack with a tail too thin for the mask.
def test_masks_are_exact(kind, seed):
    drawn, mask = draw_defect(kind, BUMPY, OTHER, np.random.default_rng(seed))
    assert drawn.dtype == np.uint8
    assert mask.dtype == bool
    changed = np.abs(drawn.astype(int) - BUMPY)
    assert 12 <= mask.sum() <= 0.35 * mask.size
    assert changed[mask].mean() > 8
    # A soft edge of a few pixels is all that may lie outside.
    assert not changed[~binary_dilation(mask, iterations=8)].any()
    assert changed[mask].sum() > 3 * changed[~mask].sum()


@pytest.mark.parametrize("kind", DEFECTS)
def test_seeded_and_varied(kind):
    drawn = [draw_defect(kind, BUMPY, OTHER, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()


@pytest.mark.parametrize("kind", ["foreign", "hole", "stain", "worn", "wire", "scratch"])
def test_one_defect_is_one_region(kind):
    for seed in range(10):
        mask = draw_defect(kind, BUMPY, OTHER, np.random.default_rng(seed))[1]
        sizes = np.bincount(label(mask, np.ones((3, 3)))[0].ravel())[1:]
        assert sizes.max() > 0.9 * mask.sum()
