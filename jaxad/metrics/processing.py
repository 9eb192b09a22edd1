"""What a protocol does to anomaly maps and masks. Maps: jax, batched, jit-able. Masks: numpy and PIL, on the host."""

from __future__ import annotations

from functools import lru_cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxad.errors import ProtocolError
from jaxad.metrics import operators
from jaxad.metrics.protocols import Protocol
from jaxad.nn.resize import bilinear


def process_maps(protocol: Protocol, maps: jax.typing.ArrayLike, *, smooth: bool) -> jax.Array:
    """Maps resized, and smoothed if `smooth`: [b h w] -> float32 [b size size]."""
    maps = jnp.asarray(maps, jnp.float32)
    chex.assert_rank(maps, 3, custom_message="maps must be [b h w]")
    _, height, width = maps.shape
    return operators.separable(chain(protocol, height, smooth), chain(protocol, width, smooth), maps)


def image_scores(protocol: Protocol, maps: jax.typing.ArrayLike) -> jax.Array:
    """One score for each map: [b size size] -> float32 [b]."""
    maps = jnp.asarray(maps, jnp.float32)
    size = protocol.size
    chex.assert_shape(maps, (None, size, size), custom_message=f"maps must be [b {size} {size}], already processed")
    if protocol.top_share is not None:
        pixels = maps.reshape(len(maps), -1)
        return jax.lax.top_k(pixels, max(1, int(pixels.shape[1] * protocol.top_share)))[0].mean(axis=1)
    if protocol.pool > 1:
        pooling = _pooling(protocol)
        maps = operators.separable(pooling, pooling, maps)
    return maps.max(axis=(1, 2))


def resize_mask(protocol: Protocol, mask: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """A mask bool [h w], or its gray values uint8 [h w], as bool [size size], or of another `shape`.

    Another shape is that of a map of tiles, which knows no canvas.

    Raises:
        ProtocolError: the mask is neither.
    """
    if mask.ndim != 2 or mask.dtype not in (bool, np.uint8):
        raise ProtocolError(f"mask of shape {mask.shape} and type {mask.dtype}: must be bool or uint8 [h w]")
    if not protocol.gray_masks:
        mask = mask > 0
    size = shape or (protocol.size, protocol.size)
    if protocol.canvas is not None and shape is None:
        side, kept = protocol.canvas
        edge = (side - kept) // 2
        gray = _filtered(mask, (side, side))[edge : edge + kept, edge : edge + kept]
        return _picked(gray, size, 0.0) > 255 * protocol.mask_above
    if protocol.mask_resize == "bilinear":
        return _filtered(mask, size) > 255 * protocol.mask_above
    return _picked(mask, size, 0.5 if protocol.mask_resize == "center" else 0.0) > 0


@lru_cache(maxsize=64)
def chain(protocol: Protocol, size: int, smooth: bool) -> np.ndarray:
    """All that happens to `size` rows or columns of a map, as one matrix [size of the result, size].

    It is kept: do not write to it.

    Args:
        protocol: says what happens.
        size: of the map.
        smooth: whether the protocol's smoothing belongs to it.
    """
    if protocol.canvas is None:
        matrix = bilinear(size, protocol.size, protocol.align_corners)
    else:
        side, kept = protocol.canvas
        matrix = operators.crop(side, kept) @ bilinear(size, side, protocol.align_corners)
        matrix = bilinear(kept, protocol.size) @ matrix
    if smooth and protocol.smoothing is not None:
        kernel = protocol.smoothing
        matrix = operators.gaussian(protocol.size, kernel.sigma, kernel.radius, kernel.boundary) @ matrix
    return matrix


@lru_cache(maxsize=64)
def _pooling(protocol: Protocol) -> np.ndarray:
    return operators.average_pool(protocol.size, protocol.pool, protocol.pool_repeats)


def _filtered(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """PIL's bilinear resizing of a mask, bool or gray values, uint8 of that size."""
    gray = Image.fromarray(mask if mask.dtype == np.uint8 else mask.astype(np.uint8) * 255)
    return np.asarray(gray.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def _picked(image: np.ndarray, size: tuple[int, int], offset: float) -> np.ndarray:
    """Nearest neighbor: sample i comes from floor((i + offset) in / out)."""
    rows, columns = (((np.arange(to) + offset) * n / to).astype(int) for n, to in zip(image.shape, size, strict=True))
    return image[np.ix_(rows, columns)]
