"""Score distributions that binned metrics get wrong, as maps and masks."""

from __future__ import annotations

import numpy as np

SIDE = 96
NAMES = (
    "normal",
    "offset 1 + 1e-3 z",
    "offset 0.5 + 0.01 z",
    "offset 1 + 1e-6 z",
    "tied",
    "eight bits",
    "constant",
    "heavy-tailed",
    "30 decades",
    "saturated",
    "narrow peak in a wide spread",
    "negative",
    "inverted",
)


def masks(images: int, seed: int = 0, side: int = SIDE) -> np.ndarray:
    """bool [b h w]: every other image with up to four squares, which may touch or overlap."""
    random = np.random.default_rng(seed)
    result = np.zeros((images, side, side), bool)
    for image in range(0, images, 2):
        for _ in range(random.integers(1, 5)):
            size = random.integers(1, side // 4)
            top, left = random.integers(0, side - size, 2)
            result[image, top : top + size, left : left + size] = True
    return result


def maps(name: str, masks: np.ndarray, seed: int = 0) -> np.ndarray:
    """float32 [b h w], higher on the masks except where the name says otherwise."""
    random = np.random.default_rng(seed)
    z = random.standard_normal(masks.shape) + 1.5 * masks
    peak = 0.5 + 1e-6 * z
    scores = {
        "normal": lambda: z,
        "offset 1 + 1e-3 z": lambda: 1 + 1e-3 * z,
        "offset 0.5 + 0.01 z": lambda: 0.5 + 0.01 * z,
        "offset 1 + 1e-6 z": lambda: 1 + 1e-6 * z,
        "tied": lambda: np.round(2 * z),
        "eight bits": lambda: np.clip(np.round(100 + 20 * z), 0, 255) / 255,
        "constant": lambda: np.full(z.shape, 0.3),
        "heavy-tailed": lambda: random.standard_cauchy(z.shape) + 2 * masks,
        "30 decades": lambda: 10 ** (random.uniform(-15, 15, z.shape) + 3 * masks),
        "saturated": lambda: 1 / (1 + np.exp(-4 * z)),
        "narrow peak in a wide spread": lambda: np.where(random.random(z.shape) < 0.3, random.random(z.shape), peak),
        "negative": lambda: -np.exp(-3 * z),
        "inverted": lambda: -z,
    }[name]()
    return scores.astype(np.float32)
