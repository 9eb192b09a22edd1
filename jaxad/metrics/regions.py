"""Defect regions of a mask: 8-connected components, and the weights by which per-region overlap becomes a pixel sum.

The per-region overlap (PRO) at a threshold is the mean over regions R of |R above the threshold| / |R|. Giving every
pixel the weight sum of 1 / |R| over the regions that contain it turns it into one weighted count.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy import ndimage


def region_weights(mask: np.ndarray, filled: bool = False) -> tuple[np.ndarray, int]:
    """Weight of each pixel, and the number of regions.

    Args:
        mask: bool [h w], True on defects.
        filled: count overlap with each region's holes filled, but divide by its area without them, as the code of
            WinCLIP does: pixels in holes get a weight, and a region can then overlap by more than 1.

    Returns:
        float64 [h w], 0 outside the regions, and the number of 8-connected regions.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    inverse_area = 1.0 / np.maximum(stats[:, cv2.CC_STAT_AREA], 1)
    inverse_area[0] = 0.0
    weights = inverse_area[np.asarray(labels, np.intp)]
    if filled:
        for region in range(1, count):
            left, top, width, height = stats[region, : cv2.CC_STAT_AREA]
            box = np.s_[top : top + height, left : left + width]
            inside = labels[box] == region
            holes = ndimage.binary_fill_holes(inside, structure=np.ones((3, 3))) & ~inside
            weights[box] += holes * inverse_area[region]
    return weights, count - 1
