"""Procedurally drawn defects with exact masks, for the textures of the demo data set.

Every defect is a matte, the share of each pixel that it covers, and what is seen where it covers. The mask is where the
matte is at least one half; pixels with no share, and those far from the mask, are untouched.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import cv2
import numpy as np
from scipy.ndimage import binary_dilation, gaussian_filter

Rng = np.random.Generator
SUPERSAMPLING = 4
EDGE = 8
"""Pixels around the mask that a defect may still touch; a crack's tail too thin for the mask ends there."""


def draw_defect(kind: str, tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """Draws one defect into a gray image.

    Args:
        kind: a key of `DEFECTS`.
        tile: uint8 [h w].
        foreign: uint8 [h w] of another material, seen in "foreign" defects.
        rng: where, how large and how strong.

    Returns:
        The defective image uint8 [h w] and its mask bool [h w], never empty.
    """
    clean = tile.astype(np.float32)
    matte, seen = DEFECTS[kind](clean, foreign.astype(np.float32), rng)
    mask = matte >= 0.5
    matte = np.where(binary_dilation(mask, iterations=EDGE), matte, 0)
    drawn = np.clip(np.rint(clean + matte * (seen - clean)), 0, 255).astype(np.uint8)
    return drawn, mask


def _scratch(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A smooth curve, brighter or darker than the surface, of uneven pressure."""
    matte = _strokes(tile.shape, [(_curve(tile.shape, rng), rng.uniform(1.6, 3.2))])
    pressure = 0.75 + 0.25 * _noise(tile.shape, 6, rng)
    shift = rng.choice([-1, 1]) * rng.uniform(50, 100)
    return matte, tile.mean() * 0.4 + tile * 0.6 + shift * pressure


def _wire(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A round wire or thread lies on the surface, lit from above, and casts a narrow shadow."""
    piece = _strokes(tile.shape, [(_curve(tile.shape, rng), rng.uniform(3.0, 5.0))])
    tone = rng.uniform(25, 60) if rng.random() < 0.5 else rng.uniform(190, 235)
    body = tone * (0.6 + 0.5 * gaussian_filter(piece, 1.0))
    return _with_shadow(tile, piece, body)


def _crack(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A dark, jagged, branching line that tapers."""
    side = min(tile.shape)
    walks = []
    trunk = _walk(rng.uniform(0.2, 0.8, 2) * side, rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.9) * side, rng)
    walks.append((trunk, rng.uniform(1.8, 3.0)))
    for _ in range(rng.integers(1, 4)):
        origin = int(rng.integers(2, len(trunk) - 2))
        heading = np.arctan2(*(trunk[origin] - trunk[origin - 1])[::-1]) + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        walks.append((_walk(trunk[origin], heading, rng.uniform(0.1, 0.3) * side, rng), rng.uniform(1.5, 2.0)))
    return _strokes(tile.shape, walks), tile * rng.uniform(0.2, 0.5)


def _stain(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A soft-edged patch in which the texture is darker (oil, water) or lighter (dust, paint)."""
    matte = gaussian_filter(_blob(tile.shape, rng.uniform(0.08, 0.17), rng), 1.5)
    density = 0.8 + 0.2 * _noise(tile.shape, 8, rng)
    factor = rng.uniform(0.35, 0.6) if rng.random() < 0.6 else rng.uniform(1.4, 1.75)
    return matte, tile * (1 + (factor - 1) * density)


def _hole(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A dark pit whose far wall catches some light."""
    matte = _blob(tile.shape, rng.uniform(0.045, 0.09), rng)
    depth = gaussian_filter(matte, 3.0)
    down, right = (np.gradient(depth, axis=axis) for axis in (0, 1))
    light = rng.normal() * down + rng.normal() * right
    return matte, rng.uniform(10, 45) + (1 - depth) * 40 + 220 * light + 4 * _noise(tile.shape, 1, rng)


def _worn(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A patch rubbed smooth: the texture is gone, the brightness is not."""
    matte = gaussian_filter(_blob(tile.shape, rng.uniform(0.11, 0.2), rng), 1.0)
    smooth = gaussian_filter(tile, rng.uniform(4, 7), mode="reflect")
    return matte, smooth + rng.uniform(-12, 12) + 2.5 * _noise(tile.shape, 0.7, rng)


def _foreign(tile: np.ndarray, foreign: np.ndarray, rng: Rng) -> tuple[np.ndarray, np.ndarray]:
    """A piece of another material lies on the surface and casts a narrow shadow."""
    piece = _blob(tile.shape, rng.uniform(0.07, 0.14), rng)
    return _with_shadow(tile, piece, foreign + rng.uniform(-20, 20))


DEFECTS: dict[str, Callable[[np.ndarray, np.ndarray, Rng], tuple[np.ndarray, np.ndarray]]] = {
    "crack": _crack,
    "foreign": _foreign,
    "hole": _hole,
    "scratch": _scratch,
    "stain": _stain,
    "wire": _wire,
    "worn": _worn,
}


def _with_shadow(tile: np.ndarray, piece: np.ndarray, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cast = np.maximum(np.roll(piece, (1, 1), axis=(0, 1)), np.roll(piece, (2, 2), axis=(0, 1)))
    shadow = gaussian_filter(cast, 1.0)
    matte = np.maximum(piece, np.where(shadow > 0.3, shadow, 0))
    return matte, piece * body + (1 - piece) * tile * 0.4


def _curve(shape: tuple[int, ...], rng: Rng) -> np.ndarray:
    """Points (x, y) [40 2] of a quadratic Bezier curve."""
    side = min(shape)
    start = rng.uniform(0.15, 0.85, 2) * side
    angle = rng.uniform(0, 2 * np.pi)
    end = np.clip(start + side * rng.uniform(0.3, 0.6) * np.array([np.cos(angle), np.sin(angle)]), 2, side - 3)
    bend = (start + end) / 2 + rng.normal(0, 0.08 * side, 2)
    t = np.linspace(0, 1, 40)[:, None]
    return (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end


def _walk(start: np.ndarray, heading: float, length: float, rng: Rng, step: float = 4.0) -> np.ndarray:
    turns = heading + np.cumsum(rng.normal(0, 0.35, max(int(length / step), 5)))
    zigzag = turns + rng.normal(0, 0.45, turns.shape)
    return np.concatenate([start[None], start + np.cumsum(step * np.stack([np.cos(zigzag), np.sin(zigzag)], 1), 0)])


def _strokes(shape: tuple[int, ...], lines: list[tuple[np.ndarray, float]]) -> np.ndarray:
    """Coverage [h w] of polylines of points (x, y), each of a width in pixels that tapers by half."""
    canvas = np.zeros([SUPERSAMPLING * size for size in shape], np.uint8)
    for points, width in lines:
        scaled = np.rint(SUPERSAMPLING * points).astype(int)
        for number, (a, b) in enumerate(pairwise(scaled)):
            taper = 1 - 0.5 * number / len(scaled)
            thickness = max(round(SUPERSAMPLING * width * taper), SUPERSAMPLING)
            cv2.line(canvas, a.tolist(), b.tolist(), 255, thickness)
    return _covered(canvas, shape)


def _blob(shape: tuple[int, ...], radius: float, rng: Rng) -> np.ndarray:
    """Coverage [h w] of an irregular, lengthened disc; `radius` is a share of the shorter side."""
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    outline = np.ones_like(angle)
    for k in range(2, 8):
        outline += rng.normal(0, 0.28 / k) * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    reach = radius * min(shape) * np.maximum(outline, 0.4)
    stretch = rng.uniform(1.0, 1.6)
    points = np.stack([np.cos(angle) * reach * stretch, np.sin(angle) * reach / stretch], 1)
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    center = rng.uniform(0.18, 0.82, 2) * shape[::-1]
    canvas = np.zeros([SUPERSAMPLING * size for size in shape], np.uint8)
    cv2.fillPoly(canvas, [np.rint(SUPERSAMPLING * (points + center)).astype(np.int32)], 255)
    return _covered(canvas, shape)


def _covered(canvas: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    blocks = canvas.reshape(shape[0], SUPERSAMPLING, shape[1], SUPERSAMPLING)
    return blocks.mean(axis=(1, 3)).astype(np.float32) / 255


def _noise(shape: tuple[int, ...], sigma: float, rng: Rng) -> np.ndarray:
    """Smooth noise [h w] of mean 0 and standard deviation 1."""
    noise = gaussian_filter(rng.normal(0, 1, shape), sigma, mode="wrap")
    return ((noise - noise.mean()) / noise.std()).astype(np.float32)
