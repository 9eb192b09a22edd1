"""Small image folders, drawn for each test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


class Tree:
    """Writes images and masks under a folder."""

    def __init__(self, root: Path):
        self.root = root
        self._next = 0

    def image(self, path: str, size: tuple[int, int] = (12, 10), *, seed: int | None = None) -> Path:
        """A random RGB image of size (height, width); unlike every other unless a seed is given."""
        self._next += 1
        rng = np.random.default_rng([0, self._next] if seed is None else [1, seed])
        return self.save(path, rng.integers(0, 256, (*size, 3), dtype=np.uint8))

    def mask(self, path: str, size: tuple[int, int] = (12, 10), *, empty: bool = False) -> Path:
        mask = np.zeros(size, np.uint8)
        mask[2:5, 3:6] = 0 if empty else 255
        return self.save(path, mask)

    def save(self, path: str, pixels: np.ndarray) -> Path:
        return self.write(path, Image.fromarray(pixels))

    def write(self, path: str, image: Image.Image, **options) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file, **options)
        return file

    def text(self, path: str, content: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def category(self, name: str, train: int = 4, good: int = 2, bad: int = 2) -> None:
        """A sound category with one defect, "scratch", and masks."""
        for index in range(train):
            self.image(f"{name}/train/good/{index:03d}.png")
        for index in range(good):
            self.image(f"{name}/test/good/{index:03d}.png")
        for index in range(bad):
            self.image(f"{name}/test/scratch/{index:03d}.png")
            self.mask(f"{name}/ground_truth/scratch/{index:03d}_mask.png")


@pytest.fixture
def tree(tmp_path) -> Tree:
    return Tree(tmp_path / "parts")
