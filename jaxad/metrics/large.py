"""What a protocol does to a map of any size, put together of tiles each of which is as large as the protocol's map.

On the host, in numpy and OpenCV: smoothing and image scores are those of `jaxad.metrics.processing`, pixel by pixel.
A map that is one tile gives the same numbers under every protocol whose maps are resized with half-pixel centers.
"""

from __future__ import annotations

import cv2
import numpy as np

from jaxad.errors import ProtocolError
from jaxad.io.pictures import by_centers
from jaxad.metrics import processing
from jaxad.metrics.protocols import Protocol


def smoothed(protocol: Protocol, map: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """The map [h w] after the protocol's Gaussian, float32.

    Of a region, `inside` bool [h w], only pixels inside count for each other; those outside get its least value.
    """
    if inside is not None:
        within = inside.astype(np.float32)
        share = smoothed(protocol, within)
        means = smoothed(protocol, np.where(inside, map, 0)) / np.where(inside, share, 1)
        return np.where(inside, means, means[inside].min()).astype(np.float32)
    map, smoothing = np.ascontiguousarray(map, np.float32), protocol.smoothing
    if smoothing is None:
        return map
    offsets = np.arange(-smoothing.radius, smoothing.radius + 1)
    kernel = np.exp(-0.5 * (offsets / smoothing.sigma) ** 2)
    kernel /= kernel.sum()
    border = cv2.BORDER_REFLECT if smoothing.boundary == "reflect" else cv2.BORDER_CONSTANT
    return cv2.sepFilter2D(map, cv2.CV_32F, kernel, kernel, borderType=border)


def image_score(protocol: Protocol, map: np.ndarray, inside: np.ndarray | None = None) -> float:
    """The image score of a map [h w], smoothed where the protocol takes it from the smoothed map.

    A share of the highest pixels is that of one tile, so that a defect counts the same in an image of any size. Of a
    region, `inside` bool [h w], means are those of its pixels, where at least half as many are as anywhere.
    """
    map = np.ascontiguousarray(map, np.float32)
    if inside is not None and protocol.top_share is not None:
        return image_score(protocol, map[inside][None])
    if inside is not None:
        share = _pooled(protocol, inside.astype(np.float32))
        means = _pooled(protocol, np.where(inside, map, 0)) / np.maximum(share, 1e-12)
        return float(means[share >= 0.5 * share.max()].max())
    if protocol.top_share is not None:
        most = min(max(1, int(protocol.size**2 * protocol.top_share)), map.size)
        return float(np.partition(map, map.size - most, axis=None)[map.size - most :].mean())
    return float(_pooled(protocol, map).max())


def _pooled(protocol: Protocol, map: np.ndarray) -> np.ndarray:
    """Means over the protocol's windows, all that lie in the map."""
    for _ in range(protocol.pool_repeats if protocol.pool > 1 else 0):
        height, width = (min(protocol.pool, length) for length in map.shape)
        map = np.ascontiguousarray(map, np.float32)
        means = cv2.boxFilter(map, cv2.CV_32F, (width, height), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
        map = means[: map.shape[0] - height + 1, : map.shape[1] - width + 1]
    return map


def resized(protocol: Protocol, map: np.ndarray) -> np.ndarray:
    """The map [h w] of a whole image at the protocol's size, as the protocol resizes it, not smoothed."""
    rows, columns = (processing.chain(protocol, length, smooth=False).astype(np.float32) for length in map.shape)
    return rows @ map.astype(np.float32) @ columns.T


def mask_like(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask bool [h w] at another size, by the pixel under each center.

    Raises:
        ProtocolError: the mask is not bool [h w].
    """
    if mask.ndim != 2 or mask.dtype != bool:
        raise ProtocolError(f"mask of shape {mask.shape} and type {mask.dtype}: must be bool [h w]")
    return by_centers(mask, shape)


def reduced(protocol: Protocol, map: np.ndarray) -> np.ndarray:
    """The map [h w] at the protocol's own size, [size size]: means where it gets smaller, else interpolated."""
    size = protocol.size
    if map.shape == (size, size):
        return map
    smaller = map.shape[0] >= size and map.shape[1] >= size
    return cv2.resize(map, (size, size), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
