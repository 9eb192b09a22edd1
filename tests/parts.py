"""Small made-up parts in MVTec layout, for tests of the whole pipeline: striped tiles with a bright blot as defect."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def make_parts(
    root: Path, categories: tuple[str, ...] = ("disc", "tile"), *, train: int = 12, test: int = 4, size: int = 56
) -> Path:
    """Writes `categories` with `train` normal images, and `test` normal and defective ones each with their masks."""
    for number, category in enumerate(categories):
        rng = np.random.default_rng(number)
        for part, count in (("train/good", train), ("test/good", test), ("test/blot", test)):
            for index in range(count):
                image = _part(rng, number, size)
                if part == "test/blot":
                    mask = _blot(rng, size)
                    image[mask] = 255 - image[mask] // 4
                    _save(root / category / "ground_truth/blot" / f"{index:03}_mask.png", mask.astype(np.uint8) * 255)
                _save(root / category / part / f"{index:03}.png", image)
    return root


def _part(rng: np.random.Generator, kind: int, size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    wave = np.sin((rows * (kind + 1) + columns * 2) / 5 + rng.uniform(0, 6))
    gray = 90 + 30 * wave + rng.normal(0, 4, (size, size))
    return np.clip(np.stack([gray, gray * 0.9, gray * (0.7 + 0.2 * kind)], -1), 0, 255).astype(np.uint8)


def _blot(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    center = rng.uniform(0.3 * size, 0.7 * size, 2)
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < (0.12 * size) ** 2


def _save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)
